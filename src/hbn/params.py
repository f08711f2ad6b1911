"""The strict schema of params.yaml: types, ranges and the nearest valid key for a misspelt one."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hbn.files import HbnError, existing

# Where releases are, by the name of data.preset.
PRESETS = {
    "hbn": "s3://fcp-indi/data/Projects/HBN/BIDS_EEG/cmi_bids_{release}",
    "openneuro": "s3://openneuro.org/{accession}",
    "challenge": "s3://nmdatasets/NeurIPS25/{release}_L100_bdf",
    "challenge-mini": "s3://nmdatasets/NeurIPS25/{release}_mini_L100_bdf",
    "simulated": "simulated://{release}",
}

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


def _distinct(values: list[str]) -> list[str]:
    if len(set(values)) != len(values):
        raise ValueError("the same name stands twice")
    return values


NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"  # of a release or task; excludes paths and command-line options
Name = Annotated[str, Field(pattern=NAME)]
Names = Annotated[list[Name], AfterValidator(_distinct)]


class Section(BaseModel):
    """Frozen, no defaults, no unknown keys, no silent conversion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Data(Section):
    releases: Annotated[Names, Field(min_length=1)]
    preset: Literal[tuple(PRESETS)]  # ty: ignore[invalid-type-form]
    url: Annotated[str, Field(pattern=r"^$|\{release\}")]
    endpoint_url: Annotated[str, Field(pattern=r"^$|^https?://")]
    tasks: Annotated[Names, Field(min_length=1)]
    n_participants: Annotated[int, Field(ge=0)]
    select: Literal["by_id", "balanced"]
    participants: Annotated[list[Annotated[str, Field(pattern=r"^sub-[A-Za-z0-9]+$")]], AfterValidator(_distinct)]


class Simulator(Section):
    seed: Seed
    metadata_dir: str
    sfreq_hz: Literal[100, 250, 500]
    file_format: Literal["set", "bdf"]
    resting_cycles: Annotated[int, Field(ge=1, le=5)]
    lead_in_s: Annotated[float, Field(ge=4, le=120)]
    search_s: Annotated[float, Field(ge=10, le=120)]
    effect_p_factor: Fraction
    effect_attention: Fraction
    effect_internalizing: Fraction
    effect_externalizing: Fraction
    ramp_uv: Annotated[float, Field(ge=0, le=100)]
    background_uv: Annotated[float, Field(gt=0, le=100)]


class Preprocess(Section):
    highpass_hz: Annotated[float, Field(ge=0.01)]
    lowpass_hz: Positive
    notch_hz: Annotated[float, Field(ge=10, allow_inf_nan=False)]
    sfreq_hz: Annotated[int, Field(ge=100, le=1000, multiple_of=100)]
    min_level_uv: Positive
    max_level_uv: Positive
    min_dead_s: Annotated[float, Field(ge=0.1, le=10)]
    flat_uv: Positive
    noisy_z: Positive
    min_neighbour_correlation: Fraction
    max_bad_channel_fraction: Fraction
    min_duration_s: Annotated[float, Field(ge=1)]
    max_rejected_fraction: Fraction

    @model_validator(mode="after")
    def _band_is_possible(self):
        if not self.highpass_hz < self.lowpass_hz < self.sfreq_hz / 2:
            raise ValueError("needs highpass_hz < lowpass_hz < sfreq_hz / 2")
        return self


class Windows(Section):
    window_s: Positive
    stride_s: Positive
    trial_offset_s: Annotated[float, Field(ge=0)]


class Splits(Section):
    test_releases: Names
    test_fraction: Fraction
    validation_fraction: Annotated[float, Field(gt=0, lt=1)]


class Model(Section):
    size: Literal["tiny", "small", "base", "large"]
    n_spatial_filters: Count
    dropout: Annotated[float, Field(ge=0, lt=1)]


class Training(Section):
    """What the one training loop reads; part of every training stage's section."""

    seed: Seed
    steps: Count
    batch_size: Count
    learning_rate: Positive
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_steps: Annotated[int, Field(ge=0)]
    gradient_clip: Positive
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    validate_every: Count
    patience: Count


# The tasks of hbn.data.event_kinds; all films count as one task.
EVENT_TASKS = ("RestingState", "surroundSupp", "contrastChangeDetection", "symbolSearch", "seqLearning", "movies")


class EventWeights(Section):
    """A weight for each kind of event that the pretraining reads out."""

    press: Weight
    stimulus_onset: Weight
    feedback: Weight
    eyes_opened: Weight
    eyes_closed: Weight
    start: Weight
    stop: Weight


class Pretrain(Training):
    excluded_tasks: Annotated[list[Literal[EVENT_TASKS]], AfterValidator(_distinct)]  # ty: ignore[invalid-type-form]
    event_sd_s: Positive
    around_events: Fraction
    weights: EventWeights


class Challenge1(Training):
    n_members: Count
    max_epochs: Count
    encoder_rate: Annotated[float, Field(ge=0, le=1)]
    frozen_steps: Annotated[int, Field(ge=0)]
    target_sd_s: Positive
    jitter_s: Annotated[float, Field(ge=0, le=0.4)]
    auxiliary_weight: Weight


class Challenge2(Section):
    n_regions: Annotated[int, Field(ge=1, le=129)]
    ridge_alphas: Annotated[list[Positive], Field(min_length=1)]


Variant = Literal["fp32", "fused", "fp16_weights", "fp16", "bf16", "int8_dynamic", "int8_static"]


class Quantize(Section):
    seed: Seed
    variants: Annotated[list[Variant], Field(min_length=1), AfterValidator(_distinct)]
    max_score_drop: Fraction
    n_calibration_windows: Count
    calibration_percentile: Annotated[float, Field(gt=50, le=100)]


class Benchmark(Section):
    seed: Seed
    warmup_runs: Annotated[int, Field(ge=0)]
    n_runs: Annotated[int, Field(ge=10)]
    batch_sizes: Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=1)]
    budget_ms: Positive
    min_speedup: Positive
    max_int8_size: Positive


class Scores(Section):
    n_bootstrap: Annotated[int, Field(ge=100)]
    seed: Seed


class Exec(Section):
    workers: Count
    dask_scheduler: str
    transfers: Annotated[int, Field(ge=1, le=64)]
    transfer_timeout_s: Positive
    transfer_limit_h: Positive
    threads: Count
    device: Literal["auto", "cpu", "cuda"]
    scratch_gb: Positive


class Params(Section):
    """The whole of params.yaml, one field per section."""

    data: Data
    simulator: Simulator
    preprocess: Preprocess
    windows: Windows
    splits: Splits
    model: Model
    pretrain: Pretrain
    challenge1: Challenge1
    challenge2: Challenge2
    quantize: Quantize
    benchmark: Benchmark
    scores: Scores
    exec: Exec

    @model_validator(mode="after")
    def _sections_agree(self):
        unknown = set(self.splits.test_releases) - set(self.data.releases)
        if unknown:
            raise ValueError(f"splits.test_releases names {sorted(unknown)}, which data.releases does not")
        if self.preprocess.min_duration_s < self.windows.window_s:
            raise ValueError(
                f"preprocess.min_duration_s is {self.preprocess.min_duration_s:g}, less than windows.window_s "
                f"({self.windows.window_s:g}): a shorter recording holds no window"
            )
        return self

    @model_validator(mode="after")
    def _no_source_is_deleted(self):
        """DVC and fetch delete data/raw/<release> before fetch writes there."""
        metadata = self.simulator.metadata_dir
        places = {"data.url": self.data.url, "simulator.metadata_dir": f"{metadata}/{{release}}" if metadata else ""}
        for key, place in places.items():
            for release in self.data.releases if place and "://" not in place else ():
                folder = Path(os.path.expanduser(place.replace("{release}", release)))
                if folder.resolve().is_relative_to(Path("data/raw").resolve()):
                    raise ValueError(f"{key}: {folder} is in data/raw, which fetch empties; move it somewhere else")
        return self


def load(path: Path | str = "params.yaml") -> Params:
    """Read and check params.yaml (YAML 1.2, so that 1e-4 is a number).

    Raises HbnError with one line per problem: the key, the value, what is allowed.
    """
    try:
        content = YAML(typ="safe", pure=True).load(existing(path))
    except YAMLError as error:
        raise HbnError(f"{path} is not valid YAML: {error}") from None
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(problem)}" for problem in error.errors())
        raise HbnError(f"{path} is refused; change it, or undo with `git checkout {path}`:\n{problems}") from None


def _explain(problem: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    value = problem["input"]
    match problem["type"]:
        case "extra_forbidden":
            siblings = _keys(problem["loc"][:-1])
            near = difflib.get_close_matches(str(problem["loc"][-1]), siblings, n=1)
            advice = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(siblings)}"
            return f"{key}: unknown key; {advice}"
        case "missing":
            return f"{key}: missing"
        case "value_error":
            text = problem["msg"].removeprefix("Value error, ")
            return f"{key}: {text}" if key else text
        case "string_pattern_mismatch":
            return (
                f"{key}: {value!r} is not allowed, it should match {problem['ctx']['pattern']} (params.yaml says how)"
            )
        case _:
            reason = problem["msg"].removeprefix("Input should be ")
            return f"{key}: {value!r} is not allowed, it should be {reason}"


def _keys(location: tuple) -> list[str]:
    model: type[BaseModel] = Params
    for part in location:
        model = cast(type[BaseModel], model.model_fields[part].annotation)
    return list(model.model_fields)
