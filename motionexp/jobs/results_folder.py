"""Where commands read finished results: an output folder, or the folder of one sweep in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from motionexp.errors import InputError
from motionexp.jobs.sweep_plan import PLAN, cells_of_sweep, output_of, read_plan
from motionexp.results.rows import Row, read_rows
from motionexp.results.selection import selected


@dataclass(frozen=True)
class ResultsFolder:
    """Where results are read from.

    Attributes:
        path: an output folder, or a sweep's folder OUTPUT/sweeps/ID.
    """

    path: Path

    @property
    def is_sweep(self) -> bool:
        """Whether it is the folder of one sweep."""
        return (self.path / PLAN).exists()

    @property
    def output(self) -> Path:
        """The folder that the paths in rows start from."""
        return output_of(self.path) if self.is_sweep else self.path

    def rows(self, select: Mapping[str, str] = MappingProxyType({})) -> list[Row]:
        """The rows that are selected; of a sweep those of its cells, and of the base model beside them.

        Raises:
            InputError: there are none, or none has one of the selected values.
        """
        rows = read_rows(self.output)
        if self.is_sweep:
            plan = read_plan(self.path / PLAN)
            cells = {cell.folder for cell in plan.cells}
            beside = {(cell.model, cell.reference) for cell in plan.cells}
            rows = [
                row
                for row in rows
                if self.cell_of(row) in cells
                or (row.method == "base" and (row.model, row.reference) in beside)
            ]
        for name, values in select.items():
            rows = selected(rows, name, values, self.path)
        if not rows:
            raise InputError(f"{self.path}: there are no rows; a job that ends well writes them")
        return rows

    def cell_of(self, row: Row) -> Path | None:
        """The folder of the cell that a row is of; None: the row has no file."""
        return (self.output / row.sample_file).parents[1] if row.sample_file else None

    def cells(self) -> list[Path]:
        """The folders of its cells."""
        if self.is_sweep:
            return cells_of_sweep(self.path)
        return sorted(path.parent for path in self.output.glob("*/*/*/status.json"))
