"""The benchmarks this package knows by name. A new one is a module here and a line in `BENCHMARKS`."""

from collections.abc import Mapping

from bundle.tasks.benchmarks.benchmark import Benchmark, Subject
from bundle.tasks.benchmarks.ceval import CEVAL
from bundle.tasks.benchmarks.cmmlu import CMMLU

__all__ = ["BENCHMARKS", "Benchmark", "Subject"]

BENCHMARKS: Mapping[str, Benchmark] = {benchmark.name: benchmark for benchmark in (CEVAL, CMMLU)}
