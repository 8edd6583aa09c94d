#!/usr/bin/env python3
"""Prints the paragraphs of debian/copyright for the crates below a directory."""

import pathlib
import re
import sys
import tomllib

TEXTS = {
    "Apache-2.0": ' On Debian systems, the complete text is in "/usr/share/common-licenses/Apache-2.0".',
    "LGPL-2.1+": ' On Debian systems, the complete text is in "/usr/share/common-licenses/LGPL-2.1".',
    "Unlicense": " The crates under this licence are dedicated to the public domain by their authors: anyone may copy,\n"
    " modify, publish, use, compile, sell and distribute them, for any purpose and by any means.",
}
# The crates contain the text of the licence.
REFERENCE = " The complete text is in the files LICENSE* or COPYING* of the crates in vendor/."
NAMES = {"LGPL-2.1-or-later": "LGPL-2.1+", "MIT": "Expat"}


def expression(licence):
    """Turns an SPDX expression into one of debian/copyright."""
    licence = licence.replace("/", " OR ").replace("(", "").replace(")", "")
    parts = re.split(r"\s+(OR|AND)\s+", licence)
    words = [NAMES.get(part, part.replace(" WITH ", " with ")) for part in parts]
    return " ".join(word.lower() if word in ("OR", "AND") else word.replace(" ", "-") for word in words)


def main():
    licences = set()
    for manifest in sorted(pathlib.Path(sys.argv[1]).glob("*/Cargo.toml")):
        package = tomllib.loads(manifest.read_text())["package"]
        licence = expression(package.get("license", "Expat"))
        licences.update(re.split(r" (?:or|and) ", licence))
        authors = [re.sub(r"\s*<[^>]*>", "", author) for author in package.get("authors", [])]
        authors = "; ".join(filter(None, authors)) or f"the authors of {package['name']}"
        print(f"\nFiles: {manifest.parent}/*\nCopyright: {authors}\nLicense: {licence}")
    for licence in sorted(licences):
        print(f"\nLicense: {licence}\n{TEXTS.get(licence, REFERENCE)}")


main()
