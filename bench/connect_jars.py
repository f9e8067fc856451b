"""Kafka Connect and Debezium's plugins, fetched once per machine into the cache of the tests.

Debezium's four plugin archives are not whole in Maven Central at one common version; these are the
newest at which each of them resolves.
"""

from __future__ import annotations

from pathlib import Path

from tests.services.install import KAFKA_VERSION, apt_in_lock, cached
from tests.services.server import run

PLUGINS = {
    "mysql": "3.6.1.Final",
    "mariadb": "3.5.0.Final",
    "postgres": "3.7.0.Final",
    "jdbc": "3.6.0.Final",
}
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>headwater</groupId><artifactId>connect</artifactId><version>1</version>
<packaging>pom</packaging><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>connect-runtime</artifactId>
<version>{version}</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId>
<version>1.7.36</version></dependency></dependencies></project>
"""
DEPENDENCY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"


def worker() -> Path:
    """A folder with the jars of a Connect worker."""

    def fill(folder: Path) -> None:
        pom = folder / "pom.xml"
        pom.write_text(POM.format(version=KAFKA_VERSION))
        _maven("-f", pom, f"{DEPENDENCY}:copy-dependencies",
               "-DincludeScope=runtime", f"-DoutputDirectory={folder}")  # fmt: skip

    return cached(f"connect-{KAFKA_VERSION}", fill)


def plugin(name: str) -> Path:
    """The folder with one of Debezium's plugins, to stand in the worker's `plugin.path`."""
    release = PLUGINS[name]

    def fill(folder: Path) -> None:
        artifact = f"io.debezium:debezium-connector-{name}:{release}:tar.gz:plugin"
        _maven(f"{DEPENDENCY}:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={folder}")
        (archive,) = folder.glob("*.tar.gz")
        run(["tar", "xzf", archive, "-C", folder])
        archive.unlink()

    return cached(f"debezium-{name}-{release}", fill)


def _maven(*words: str | Path) -> None:
    run([apt_in_lock("maven", "mvn"), "-B", "-q", "-Dstyle.color=never", *words])
