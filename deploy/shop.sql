-- The source of compose.yaml: two tables with identities, and an account that may read them.
CREATE TABLE users (
    id bigint AUTO_INCREMENT PRIMARY KEY,
    sync_id char(36) CHARACTER SET ascii NOT NULL DEFAULT (uuid()) UNIQUE,
    name varchar(100) NOT NULL
);
CREATE TABLE orders (
    id bigint AUTO_INCREMENT PRIMARY KEY,
    sync_id char(36) CHARACTER SET ascii NOT NULL DEFAULT (uuid()) UNIQUE,
    user_id bigint NOT NULL,
    item varchar(100) NOT NULL,
    FOREIGN KEY (user_id) REFERENCES users (id)
);
INSERT INTO users (name) VALUES ('Ada'), ('Grace');
INSERT INTO orders (user_id, item) VALUES (1, 'engine'), (2, 'compiler');

CREATE USER headwater IDENTIFIED BY 'headwater';
GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO headwater;
GRANT SELECT ON shop.* TO headwater;
