"""Writes the C++ of CONTRIBUTING.md to files: a block goes where the last path named before it says.

usage: extract.py CONTRIBUTING.md FOLDER
"""
import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1]).parent
text = pathlib.Path(sys.argv[1]).read_text()
folder = pathlib.Path(sys.argv[2])
wanted = {}
path = None
for part in re.split(r"^(```cpp\n.*?^```)$", text, flags=re.MULTILINE | re.DOTALL):
    if not part.startswith("```cpp\n"):
        named = re.findall(r"`((?:kernels|autograd|tests)/\w[\w/]*\.(?:h|cpp))`", part)
        path = named[-1] if named else None
    elif path is None or path in wanted or (root / path).exists():
        sys.exit(f"{sys.argv[1]}: this block of C++ has no path of its own before it, but {path}:\n{part[:200]}")
    else:
        wanted[path] = part[len("```cpp\n"):-len("```")]

for old in folder.rglob("*"):
    if old.is_file() and str(old.relative_to(folder)) not in wanted:
        old.unlink()
for path, code in wanted.items():  # unchanged files keep their time, and are not built again
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.is_file() or file.read_text() != code:
        file.write_text(code)
