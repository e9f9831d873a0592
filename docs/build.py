"""Build the documentation of every released version and of the checkout, side by side, with a list of the versions.

    python -m docs.build site

Run it in a clone that has the tags, after `pip install -e ".[docs]"`. A tag `v0.2.0` becomes `site/0.2.0`, and is kept
if it is there; the checkout becomes the folder of the version in its setup.cfg, unless that is released.
`site/index.html` leads to the newest release. Pages find the list in `site/versions.js`, a script, because a page from
disk may not fetch anything.
"""

from __future__ import annotations

import argparse
import configparser
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from energyql.files import write_text

ROOT = Path(__file__).parents[1]
LEAD = """<!doctype html>
<meta charset="utf-8">
<title>energyql</title>
<meta http-equiv="refresh" content="0; url={version}/index.html">
<a href="{version}/index.html">energyql {version}</a>
"""


def git(checkout: Path, *words: str) -> bytes:
    """Return what a git command prints."""
    return subprocess.run(["git", *words], cwd=checkout, check=True, stdout=subprocess.PIPE).stdout


def released(checkout: Path) -> dict[str, str]:
    """Return version -> tag, newest first."""
    tags = git(checkout, "tag", "--list", "v*").decode().split()
    found = {tag[1:]: tag for tag in tags if re.fullmatch(r"v\d+\.\d+\.\d+", tag)}
    return {version: found[version] for version in sorted(found, key=order, reverse=True)}


def order(version: str) -> list[int]:
    """Return a key that sorts versions."""
    return [int(part) for part in version.split(".")]


def declared(checkout: Path) -> str:
    """Return the version in setup.cfg."""
    setup = configparser.ConfigParser()
    setup.read(checkout / "setup.cfg", encoding="utf-8")
    return setup["metadata"]["version"]


def build(source: Path, version: str, site: Path, *options: str) -> None:
    """Build the documentation of a source tree, with its own settings and code, into the folder of a version.

    Raises:
        CalledProcessError: it does not build; Sphinx has said why. An earlier folder stays.
    """
    with tempfile.TemporaryDirectory(dir=site, prefix=".building-") as folder:
        given = {"release": version, "version": version, "html_title": f"energyql {version}"}
        settings = [word for name, value in given.items() for word in ("-D", f"{name}={value}")]
        command = [sys.executable, "-m", "sphinx", "-q", "-A", "versioned=1", *settings, *options]
        variables = {**os.environ, "PYTHONPATH": str(source)}
        subprocess.run(
            [*command, "-d", f"{folder}/trees", "docs", f"{folder}/pages"], cwd=source, env=variables, check=True
        )
        shutil.rmtree(site / version, ignore_errors=True)
        Path(folder, "pages").rename(site / version)


def build_tag(checkout: Path, tag: str, site: Path) -> None:
    """Build the documentation of a tag. Warnings are allowed, because Sphinx was older then."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(git(checkout, "archive", tag))) as archive:
            archive.extractall(folder, filter="data")
        build(Path(folder), tag[1:], site)


def build_site(checkout: Path, site: Path) -> None:
    """Build what is missing, the checkout in any case, and the list of versions."""
    site.mkdir(parents=True, exist_ok=True)
    tags, present = released(checkout), declared(checkout)
    for version, tag in tags.items():
        if not (site / version).exists():
            build_tag(checkout, tag, site)
    if present not in tags:
        build(checkout, present, site, "-W", "--keep-going")
    versions = [
        {
            "name": version,
            "released": version in tags,
            "pages": sorted(page.relative_to(site / version).as_posix() for page in (site / version).rglob("*.html")),
        }
        for version in sorted({*tags, present}, key=order, reverse=True)
    ]
    script = (Path(__file__).parent / "versions.js").read_text(encoding="utf-8")
    write_text(site / "versions.js", f"const VERSIONS = {json.dumps(versions)};\n{script}")
    write_text(site / "index.html", LEAD.format(version=next(iter(tags), present)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path, help="folder to write to")
    build_site(ROOT, parser.parse_args().site.resolve())
