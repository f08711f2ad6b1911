"""Write params.schema.json, by which editors complete and check params.yaml: `make schema`.

The rules are those of hbn.params; the descriptions are the comments of params.yaml.
"""

import json
import sys
from pathlib import Path

from hbn import params
from hbn.files import write_text


def schema(text: str) -> dict:
    """JSON schema of params.yaml; the comments in its content `text` become the descriptions of the keys."""
    content = params.Params.model_json_schema()
    about = comments(text)
    for section, reference in content["properties"].items():
        properties = content["$defs"][Path(reference["$ref"]).name]["properties"]
        for key, rule in properties.items():
            # The keys that both training stages share are described once, in the section pretrain.
            if description := about.get(f"{section}.{key}") or about.get(f"pretrain.{key}"):
                rule["description"] = description
    content["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    content["title"] = "params.yaml"
    return content


def comments(text: str) -> dict[str, str]:
    """The comment right above or behind each 'section.key' (two spaces deep) of a YAML text in block style."""
    descriptions, section, above = {}, "", []
    for line in text.splitlines():
        name = line.split(":")[0]
        if line.startswith("  #"):
            above.append(line.strip(" #"))
            continue
        if name and name[0].isalpha():
            section = name
        elif line.startswith("  ") and line[2].isalpha():
            behind = line.partition("  # ")[2]
            if about := " ".join([*above, behind]).strip():
                descriptions[f"{section}.{name.strip()}"] = about
        above = []
    return descriptions


def main(source: str = "params.yaml", destination: str = "params.schema.json") -> None:
    content = schema(Path(source).read_text(encoding="utf-8"))
    write_text(destination, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
