"""How far the package is spread: the files that a call passes through, those that it loads, and chains of imports.

    python -m benchmarks.structure

Needs grimp, which import-linter of the extra `test` brings.
"""

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import grimp

import energyql

PACKAGE = Path(energyql.__file__).parent
FIRST_USE = "import sys, energyql; energyql.generate; print(*(name for name in sys.modules if 'energyql' in name))"


def called_files(call: Callable[[], object]) -> set[str]:
    """Return the files of the package that hold a function that `call` runs, in any thread of this call's own."""
    files: set[str] = set()
    sys.setprofile(lambda frame, event, _: files.add(frame.f_code.co_filename) if event == "call" else None)
    try:
        call()
    finally:
        sys.setprofile(None)
    return {file for file in files if file.startswith(f"{PACKAGE}/")}


def loaded_modules() -> list[str]:
    """Return the modules of the package that the first use of `energyql.generate` imports, in a new process."""
    return subprocess.run([sys.executable, "-c", FIRST_USE], capture_output=True, text=True, check=True).stdout.split()


def longest_chain() -> list[str]:
    """Return the longest chain of imports at the top of modules; those for types only do not count."""
    graph = grimp.build_graph("energyql", exclude_type_checking_imports=True, cache_dir=None)

    @cache
    def chain(module: str) -> list[str]:
        below = [chain(name) for name in sorted(graph.find_modules_directly_imported_by(module)) if top(module, name)]
        return [module, *max(below, key=len, default=[])]

    def top(module: str, name: str) -> bool:
        path = PACKAGE.parent.joinpath(*module.split("."))
        lines = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text().splitlines()
        details = graph.get_import_details(importer=module, imported=name)
        return any(not lines[detail["line_number"] - 1].startswith(" ") for detail in details)

    return max(map(chain, sorted(graph.modules)), key=len)


def main() -> None:
    """Print the numbers, and the files and chain that they count."""

    def call() -> object:
        return energyql.generate("smile AND NOT glasses", 4, progress=False)

    call()
    called, loaded, chain = called_files(call), loaded_modules(), longest_chain()
    print(f"files of the package: {len(list(PACKAGE.rglob('*.py')))}")
    print(f"called by a warm generate() of a common query: {len(called)}")
    print("  " + ", ".join(sorted(str(Path(file).relative_to(PACKAGE)) for file in called)))
    print(f"loaded by the first use of energyql.generate: {len(loaded)}")
    print(f"longest chain of imports: {len(chain)}")
    print("  " + " -> ".join(name.removeprefix("energyql.") for name in chain))


if __name__ == "__main__":
    main()
