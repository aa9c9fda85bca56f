"""Everything that touches private parts of Hydra's plugins, Hydra and joblib, each for want of a public way.

Written for Hydra, its sweeper and launchers 1.4.0rc3, and joblib 1.6. After an upgrade of one of them, look here first.
`BasicLauncher` itself is private: Hydra has no public name for the launcher that a launcher of one's own falls back on.
"""

import contextlib
import functools
import logging
import re
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from hydra._internal.core_plugins.basic_launcher import BasicLauncher as BasicLauncher
from hydra._internal.defaults_list import Overrides

if TYPE_CHECKING:
    from hydra._internal.config_repository import IConfigRepository
    from hydra.core.override_parser.types import Override, ParsedElementType
    from hydra.core.utils import JobReturn
    from joblib.executor import MemmappingExecutor
    from omegaconf import DictConfig
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    Distribution = CategoricalDistribution | FloatDistribution | IntDistribution

_pool_start = threading.Lock()


def job_error(job: "JobReturn") -> BaseException | None:
    """The error that ended a job; None for a job that is completed.

    Private: `JobReturn._return_value` of Hydra 1.4.0rc3. The public `return_value` prints a line before it raises.
    """
    from hydra.core.utils import JobStatus

    error: BaseException | None = job._return_value if job.status == JobStatus.FAILED else None
    return error


def parse_override(override: str) -> tuple[dict[str, "Distribution"], dict[str, str], list[str]]:
    """One override as (key -> distribution, key -> fixed value, deletions), in the syntax of Hydra's Optuna sweeper.

    Private: the module `_impl` of hydra-optuna-sweeper 1.4.0rc3. Its public module holds the plugin's class alone.
    """
    from hydra_plugins.hydra_optuna_sweeper._impl import create_params_from_overrides

    searched, fixed, deletions = create_params_from_overrides([override])
    return cast("dict[str, Distribution]", searched), fixed, deletions


def enumerate_values(distribution: "Distribution") -> list[Any]:
    """All values of a distribution, as Hydra's Optuna sweeper gives them to a GridSampler.

    Raises ValueError where there is no end of them. Private: as for `parse_override`, and the method itself.
    """
    from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl

    return list(OptunaSweeperImpl._to_grid_sampler_choices(distribution))


def allow_numbered_options() -> None:
    """Let `experiment=1` mean the recipe `1.yaml`, `model=18` an option `18.yaml`: Hydra takes numbers for no names.

    Private: `Overrides` of Hydra 1.4.0rc3, which reads the overrides before the defaults list.
    """
    original = Overrides.__init__
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def read_overrides(self: Overrides, repo: "IConfigRepository", overrides_list: "list[Override]") -> None:
        def name(group: str, value: object) -> object:
            named = group == "experiment" or repo.config_exists(f"{group}/{value}")
            return str(value) if type(value) is int and named else value

        for override in overrides_list:
            group, value = override.key_or_group, override._value
            if type(value) in (int, list) and repo.group_exists(group):
                named = [name(group, one) for one in value] if isinstance(value, list) else name(group, value)
                override._value = cast("ParsedElementType", named)
        original(self, repo, overrides_list)

    Overrides.__init__ = read_overrides  # type: ignore[method-assign]


def read_times_as_text() -> None:
    """Let `1:30:00` in a YAML file be a text, as in YAML 1.2: PyYAML makes 5400 of it, a number to base 60.

    Private: `get_yaml_loader` of OmegaConf 2.4's module, which gives a new class each time.
    """
    from omegaconf import omegaconf

    original = getattr(omegaconf, "get_yaml_loader")  # noqa: B009  (not among the module's public names)
    if hasattr(original, "__wrapped__"):
        return
    time = ("tag:yaml.org,2002:str", re.compile(r"[-+]?\d[\d_]*(:[0-5]?\d)+(\.[\d_]*)?$"))

    @functools.wraps(original)
    def get_loader(**keywords: object) -> object:
        loader = original(**keywords)
        for first in "-+0123456789":
            loader.yaml_implicit_resolvers[first].insert(0, time)
        return loader

    setattr(omegaconf, "get_yaml_loader", get_loader)  # noqa: B010


def parse_references_once() -> None:
    """Let OmegaConf parse each text with a `${…}` once, and not each time that its value is asked for.

    Private: `parse` in OmegaConf 2.4's module `base`. Nothing changes the trees that it returns.
    """
    from omegaconf import base

    original = getattr(base, "parse")  # noqa: B009  (imported there from a module of the grammar)
    if not hasattr(original, "__wrapped__"):
        setattr(base, "parse", functools.lru_cache(1000)(original))  # noqa: B010


def serialise_pool_starts() -> None:
    """Let one thread at a time ask joblib for its pool.

    Private: `MemmappingExecutor.get_memmapping_executor` of joblib 1.6, which gives a new pool its folders only after
    other threads can find it (joblib #1794: AttributeError, _temp_folder_manager).
    """
    from joblib.executor import MemmappingExecutor

    original = MemmappingExecutor.get_memmapping_executor.__func__
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def get_alone(*args: object, **kwargs: object) -> MemmappingExecutor:
        with _pool_start:
            pool: MemmappingExecutor = original(*args, **kwargs)
            return pool

    MemmappingExecutor.get_memmapping_executor = classmethod(get_alone)


def note_submitit_jobs() -> list[Any]:
    """A list that all jobs come to which submitit submits from now on: Hydra's launcher keeps them to itself.

    Private: nothing, but `submitit.AutoExecutor.map_array` of submitit 1.5 is replaced.
    """
    import submitit

    logging.getLogger("submitit").setLevel(logging.ERROR)  # it warns at each look at a queue without accounting
    return note_results(submitit.AutoExecutor, "map_array")


def note_ray_tasks() -> list[Any]:
    """A list that all tasks come to which Hydra's Ray launcher begins from now on.

    Private: `launch_job_on_ray` in the module `_core` of hydra-ray-launcher 1.4.0rc3.
    """
    from hydra_plugins.hydra_ray_launcher import _core

    return note_results(_core, "launch_job_on_ray")


def note_results(owner: object, name: str) -> list[Any]:
    """A list that what a function returns comes to from now on; of a list, its elements."""
    noted: list[Any] = []
    original = getattr(owner, name)
    original = getattr(original, "__wrapped__", original)

    @functools.wraps(original)
    def call(*args: object, **keywords: object) -> object:
        result = original(*args, **keywords)
        noted.extend(result if isinstance(result, list) else [result])
        return result

    setattr(owner, name, call)
    return noted


def worker_pool() -> "MemmappingExecutor | None":
    """The pool of worker processes that joblib's launcher uses in this process; None before the first job.

    Private: loky's `_executor`, in joblib 1.6. The public `get_reusable_executor` starts a pool where there is none.
    """
    from joblib.externals.loky import reusable_executor

    return reusable_executor._executor


def worker_ids(pool: "MemmappingExecutor") -> list[int]:
    """The ids of a pool's living processes.

    Private: `_processes` of joblib 1.6's executor. `multiprocessing.active_children` lists other children too.
    """
    return list(pool._processes or ())


@contextlib.contextmanager
def own_hydra() -> Iterator[None]:
    """Within it Hydra starts anew; then its global state is what it was, another program's configuration included.

    Private: `Singleton._instances` of Hydra 1.4.0rc3. The public `initialize` refuses to begin where Hydra is in use.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.singleton import Singleton
    from hydra.core.utils import JobRuntime

    kinds: tuple[type, ...] = (GlobalHydra, HydraConfig, JobRuntime)
    before = {kind: Singleton._instances.pop(kind) for kind in kinds if kind in Singleton._instances}
    try:
        yield
    finally:
        for kind in kinds:
            Singleton._instances.pop(kind, None)
        Singleton._instances.update(before)


def apply_values(overrides: "list[Override]", config: "DictConfig") -> None:
    """Set, add or delete single values of a composed configuration.

    Private: `ConfigLoaderImpl._apply_overrides_to_config` of Hydra 1.4.0rc3.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    ConfigLoaderImpl._apply_overrides_to_config(overrides, config)
