-- What pgbench's own transactions do not do: rows go and come back, identities and keys change.
\set gone random(1, 100000 * :scale)
\set renewed random(1, 100000 * :scale)
\set renamed random(1, 100000 * :scale)
\set moved random(1, 100000 * :scale)
BEGIN;
-- Deleted; the same key comes back as another row.
DELETE FROM pgbench_accounts WHERE aid = :gone;
INSERT INTO pgbench_accounts (aid, bid, abalance, filler) VALUES (:gone, 1, 7, 'again');
-- Deleted and back again with the same identity.
WITH row AS (DELETE FROM pgbench_accounts WHERE aid = :renewed RETURNING *)
INSERT INTO pgbench_accounts SELECT * FROM row;
-- The identity changes, the key stays.
UPDATE pgbench_accounts SET sync_id = gen_random_uuid() WHERE aid = :renamed;
-- The key changes, the identity stays.
UPDATE pgbench_accounts SET aid = -aid WHERE aid = :moved;
DELETE FROM pgbench_history WHERE sync_id = (SELECT sync_id FROM pgbench_history LIMIT 1);
END;
