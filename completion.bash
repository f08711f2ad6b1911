# `source completion.bash`, in the activated environment: TAB then completes dvc, with the parameters after
# `dvc exp run -S` and their values (from params.schema.json and params.yaml), and the targets of make.
source <(dvc completion -s bash)

_hbn_parameters() {
    python - "$@" <<'END'
import json
from ruamel.yaml import YAML
schema, now = json.load(open("params.schema.json")), YAML(typ="safe").load(open("params.yaml"))
for section, rule in schema["properties"].items():
    for key, value in schema["$defs"][rule["$ref"].split("/")[-1]]["properties"].items():
        for choice in ["", *value.get("enum", [json.dumps(now[section][key]).replace(" ", "")])]:
            print(f"{section}.{key}={choice}")
END
}

_hbn_dvc() {
    local line=${COMP_LINE:0:COMP_POINT} word typed=${COMP_WORDS[COMP_CWORD]}
    word=${line##*[[:space:]]}
    if [[ ! -f params.schema.json || ! ${line%"$word"} =~ [[:space:]](-S|--set-param)[[:space:]]+$ ]]; then
        _shtab_dvc "$@"
        return
    fi
    word=${word#[\'\"]} typed=${typed#[\'\"]}
    [[ $typed == "=" ]] && typed=""
    # First the names, then the values of one. Readline has cut the word at =, and keeps what is before it.
    local pattern="=$"
    [[ $word == *=* ]] && pattern="=."
    mapfile -t COMPREPLY < <(compgen -W "$(_hbn_parameters 2>/dev/null | grep -- "$pattern")" -- "$word")
    COMPREPLY=("${COMPREPLY[@]#"${word%"$typed"}"}")
    compopt -o nospace
}
complete -o bashdefault -F _hbn_dvc dvc

_hbn_make() {
    mapfile -t COMPREPLY < <(compgen -W "$(sed -nE 's/^([a-z0-9]+):.*##.*/\1/p' Makefile 2>/dev/null)" -- "$2")
}
complete -o default -F _hbn_make make
