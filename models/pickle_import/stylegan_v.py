"""Constructor arguments of a StyleGAN-V generator out of a training snapshot.

The configuration is a tree of records of omegaconf's classes: a DictConfig's state has `_content`
(name -> node) and `_parent`, a leaf's has `_val`. It is one branch of the whole training
configuration, so a value may be a reference such as `${model.generator.time_enc.min_period_len}`:
we climb to the root and look it up by hand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.errors import BadCheckpoint
from models.pickle_import.inert import Record
from models.pickle_import.networks import attribute, plain
from models.pickle_import.nvidia import Facts, mapping_arguments

CLIMB = 64  # parents; five occur
HOPS = 8  # references that lead to references
REFERENCES = 256  # followed in one file; published ones hold five
REFERENCE_LENGTH = 400  # characters; 60 occur
_REFERENCE = re.compile(r"\$\{([A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+){0,15})\}")
_SYNTHESIS = ("channel_base", "channel_max", "num_fp16_res", "conv_clamp")
_MOTION = ("z_dim", "v_dim", "motion_z_distance", "gen_strategy", "kernel_size", "fourier")
_TIME = ("cond_type", "dim", "min_period_len", "max_period_len")


@dataclass
class Budget:
    """How many references may still be followed.

    Their depth alone bounds little: every part of a path may be a reference again.
    """

    left: int = REFERENCES

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise BadCheckpoint(
                "CKPT_TOO_DEEP", f"the configuration has more than {REFERENCES} references"
            )


def stylegan_v_arguments(facts: Facts) -> dict[str, Any]:
    """Arguments of the StyleGAN-V generator, its `cfg` resolved and reduced to what is read."""
    given = facts.arguments("")
    config: dict[str, Any] = {}
    facts.take(config, "", ("c_dim", "w_dim", "img_resolution", "img_channels"))
    mapping = facts.nested(given, "mapping_kwargs")
    mapping.pop("cfg", None)
    config["mapping_kwargs"] = mapping_arguments(facts, mapping)
    synthesis = {**facts.nested(given, "synthesis_kwargs"), **facts.arguments("synthesis")}
    config["synthesis_kwargs"] = {
        key: plain(synthesis[key]) for key in _SYNTHESIS if key in synthesis
    }
    facts.take(config["synthesis_kwargs"], "synthesis.b4.conv1", ("conv_clamp",))
    config["cfg"] = _published(facts, attribute(facts.module(""), "cfg"))
    return config


def _published(facts: Facts, tree: object) -> dict[str, Any]:
    """The part of `cfg` that the network reads, in the authors' names."""
    cfg: dict[str, Any] = {}
    budget = Budget()
    facts.take(cfg, "", ("z_dim",))
    _put(cfg, "use_noise", find(tree, ("use_noise",), budget))
    cfg["input"] = _branch(tree, "input", ("type",), budget)
    cfg["motion"] = _branch(tree, "motion", _MOTION, budget)
    cfg["time_enc"] = _branch(tree, "time_enc", _TIME, budget)
    # Without the root of the configuration the distance stays unknown; its default is this period.
    if "motion_z_distance" not in cfg["motion"] and "min_period_len" in cfg["time_enc"]:
        cfg["motion"]["motion_z_distance"] = cfg["time_enc"]["min_period_len"]
    sampling = facts.nested({"it": attribute(facts.module(""), "sampling_dict")}, "it")
    cfg["sampling"] = {}
    for key in ("max_num_frames", "fps"):
        value = plain(sampling.get(key))
        if value is None:
            value = find(tree, ("sampling", key), budget)
        _put(cfg["sampling"], key, value)
    return cfg


def _branch(tree: object, name: str, keys: Sequence[str], budget: Budget) -> dict[str, Any]:
    branch: dict[str, Any] = {}
    for key in keys:
        _put(branch, key, find(tree, (name, key), budget))
    return branch


def _put(into: dict[str, Any], key: str, value: object) -> None:
    if value is not None:
        into[key] = value


def find(tree: object, path: Sequence[str], budget: Budget | None = None) -> Any:
    """The plain value at `path` with references followed; None where there is none.

    Raises:
        BadCheckpoint: CKPT_TOO_DEEP, the budget is used up.
    """
    return plain(_value(_walk(tree, path, HOPS, budget or Budget())))


def _walk(node: object, path: Sequence[str], hops: int, budget: Budget) -> object:
    node = _follow(node, hops, budget)
    for key in path:
        content = _value(node)
        if type(content) is not dict:
            return None
        node = _follow(content.get(key), hops, budget)
    return node


def _value(node: object) -> object:
    """What a node holds: its own value, a table of nodes, or the plain value itself."""
    if type(node) is Record:
        state = node.state
        if type(state) is not dict:
            return None
        return state["_val"] if "_val" in state else state.get("_content")
    return node


def _follow(node: object, hops: int, budget: Budget) -> object:
    """The node a reference means; the node itself where it is none; None if it leads nowhere."""
    content = _value(node)
    if type(content) is not str or not content.startswith("${"):
        return node
    if hops == 0 or type(node) is not Record or len(content) > REFERENCE_LENGTH:
        return None
    budget.spend()
    reference = _REFERENCE.fullmatch(content)
    if reference is None:
        return None
    return _walk(_root(node), reference[1].split("."), hops - 1, budget)


def _root(node: Record) -> Record:
    for _ in range(CLIMB):
        parent = node.state.get("_parent") if type(node.state) is dict else None
        if type(parent) is not Record:
            break
        node = parent
    return node
