"""Prints values of a file that scripts/record-host.py wrote, one line of JSON for each path, such as `open/read/good`.

The first name of a path is an experiment; why it did not come to its end stands under `ended`. `server/...` is what the file says of
the server, and `names` the list of the experiments.
"""

import json
import sys

sys.dont_write_bytecode = True


def at(value, names):
    """The value below; null where there is none."""
    for name in names:
        if isinstance(value, list):
            value = value[int(name)] if int(name) < len(value) else None
        else:
            value = value.get(name) if isinstance(value, dict) else None
    return value


def main():
    """For every path of the command line."""
    with open(sys.argv[1], encoding="utf-8") as file:
        content = json.load(file)
    known = {entry["name"]: dict(entry["result"] or {}, ended=entry["stopped"])
             for entry in content["experiments"]}
    known.update(names=sorted(known), server=content["server"])
    for path in sys.argv[2:]:
        print(json.dumps(at(known, path.split("/")), sort_keys=True))


main()
