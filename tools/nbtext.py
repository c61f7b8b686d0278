"""A notebook as text for `git diff`: sources, cell ids, tags, text outputs, and a short hash for every image.

git config diff.nbtext.textconv "python3 tools/nbtext.py"      once in each clone; .gitattributes does the rest
"""

import hashlib
import json
import sys


def joined(text) -> str:
    return "".join(text) if isinstance(text, list) else str(text)


def cell_text(cell: dict) -> str:
    tags = " ".join(f"#{tag}" for tag in cell["metadata"].get("tags", []))
    graded = cell["metadata"].get("nbgrader", {})
    role = (
        "solution" if graded.get("solution") else f"check, {graded.get('points')} points" if graded.get("grade") else ""
    )
    lines = [f"--- {cell['cell_type']} {cell.get('id', '?')} {tags} {role}".rstrip(), joined(cell["source"])]
    for output in cell.get("outputs", []):
        if output["output_type"] == "error":
            lines.append(f"    ! {output['ename']}: {output['evalue']}")
        for kind, content in {**output.get("data", {}), output.get("name", ""): output.get("text", "")}.items():
            content = joined(content)
            if kind.startswith("image/"):
                alt = output.get("metadata", {}).get(kind, {}).get("alt", "no alternative text")
                lines.append(f"    = {kind} {hashlib.sha256(content.encode()).hexdigest()[:12]}: {alt}")
            else:
                lines += [f"    > {line}" for line in content.splitlines()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        sys.stdout.reconfigure(encoding="utf-8")
        print("\n".join(map(cell_text, json.load(file)["cells"])))
