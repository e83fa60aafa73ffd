#!/usr/bin/python3
"""Runs the cells of a notebook without Jupyter, and keeps what they print, show and draw.

usage: notebook.py FILE      runs it as it is and writes the outputs into it, as Jupyter does
"""
import ast
import base64
import contextlib
import io
import json
import sys


def run_cell(source, names):
    """The value of the last expression, as a notebook shows it; else None."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), names) if last else None


def pictures():
    """What matplotlib has drawn, as PNGs."""
    if "matplotlib.pyplot" not in sys.modules:
        return
    plot = sys.modules["matplotlib.pyplot"]
    for number in plot.get_fignums():
        out = io.BytesIO()
        plot.figure(number).savefig(out, format="png", dpi=80)
        plot.close(number)
        yield base64.b64encode(out.getvalue()).decode()


def run(notebook, parameters=None, skip=()):
    """Executes the code cells in order, filling in their outputs. The parameters go after the cell tagged so; cells
    with a tag of `skip` are left out. Returns the names that the cells defined."""
    names, count = {"__name__": "__main__"}, 0
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        if cell["cell_type"] != "code" or set(tags) & set(skip):
            continue
        count += 1
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            value = run_cell("".join(cell["source"]), names)
        if "parameters" in tags:
            names.update(parameters or {})
        cell["execution_count"], cell["outputs"] = count, []
        if printed.getvalue():
            cell["outputs"].append({"name": "stdout", "output_type": "stream",
                                    "text": printed.getvalue().splitlines(True)})
        if value is not None:
            cell["outputs"].append({"data": {"text/plain": repr(value).splitlines(True)}, "execution_count": count,
                                    "metadata": {}, "output_type": "execute_result"})
        for png in pictures():
            cell["outputs"].append({"data": {"image/png": png + "\n", "text/plain": ["<Figure>"]}, "metadata": {},
                                    "output_type": "display_data"})
    return names


def main(path):
    with open(path, encoding="utf-8") as file:
        notebook = json.load(file)
    run(notebook)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(notebook, file, indent=1, ensure_ascii=False)
        file.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
