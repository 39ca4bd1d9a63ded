"""Which quantized weights can be recomputed from a base, and from what.

Looks at names, headers and digests alone. Whatever another rule already calls a fault of a
weight or its scales is an obstacle here, so that one fault is told once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ckptdiff.analysis.against_base import algorithms_of, layers_apart
from ckptdiff.analysis.proving.agreement import Bonds
from ckptdiff.analysis.proving.leeway import Axis
from ckptdiff.analysis.quantization import claimed_algorithm, known_algorithm, lacking_scales
from ckptdiff.formats.layouts import scale_suffix
from ckptdiff.formats.names import FUSED, experts_of, norms_before
from ckptdiff.quant.arrays import STORED
from ckptdiff.quant.dialects import HOSTS, Host
from ckptdiff.quant.registry import CODINGS
from ckptdiff.records.checkpoint import Shard, Tensor
from ckptdiff.records.coverage import Module
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.layout import LayoutName, Suffix

PARTS: tuple[Suffix, ...] = ("weight_scale", "weight_scale_2", "pre_quant_scale")
"""The scales that a weight's values depend on."""

_FLOATS = ("BF16", "F16", "F32", "F64")
# Layouts with a scale for the whole tensor, over which linears can agree.
_SHARING: tuple[LayoutName, ...] = ("fp8", "fp8-block", "nvfp4", "nvfp4-32")
# NVFP4_AWQ may move the input scale of down_proj into the rows of up_proj, and o_proj's into
# v_proj: of each, which axis gets a factor, and whose that is.
_RESCALED: Mapping[str, tuple[Axis, str]] = {
    "up_proj": ("rows", "down_proj"),
    "v_proj": ("rows", "o_proj"),
    "down_proj": ("columns", "down_proj"),
    "o_proj": ("columns", "o_proj"),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One quantized module that can be held against the base's module of the same key.

    `shares` are sets of keys of base modules that its whole scale may stand for, `folds` keys
    of norms whose factor may belong to its columns; `folded`: there is one, and it does. `lacking`
    names a module over whose base weight the scale may have been taken as well, if that cannot be
    used. See `analysis.proof.Weight` for the rest.
    """

    key: str
    module: Module
    layouts: tuple[LayoutName, ...]
    hosts: tuple[Host, ...]
    scale_hosts: tuple[Host, ...]
    shares: tuple[tuple[str, ...], ...]
    folds: tuple[str, ...]
    folded: bool
    searched: bool
    rescaled: Axis | None
    lacking: str | None

    @property
    def originals(self) -> tuple[str, ...]:
        """The keys of all base modules that may have to be read, its own first."""
        return tuple(dict.fromkeys([self.key, *(key for keys in self.shares for key in keys)]))


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor and where it lies."""

    name: str
    tensor: Tensor
    shard: Shard


class Surveyor:
    """Makes the cases of one scheme; what is the same for all its modules is found out once."""

    def __init__(self, scheme: SchemeEvidence, base: SchemeEvidence) -> None:
        self._scheme, self._base = scheme, base
        self.tensors = _by_name(scheme)
        self.originals = _by_name(base)
        names = Counter(name for name, _, _ in scheme.checkpoint.items())
        self._twice = {name for name, count in names.items() if count > 1}
        self._lacking = {key for key, suffix in lacking_scales(scheme) if suffix in PARTS}
        self._algorithms = algorithms_of(scheme)
        self._neighbours = _host_of(scheme)
        self._siblings = _below(scheme.layouts, 1)
        self._layers = _below(scheme.layouts, 2)
        self._linears = _below(base.coverage.modules, 2)
        self._norms = _norms(scheme, base)
        self._apart = layers_apart(scheme, base)

    def obstacle(self, key: str) -> str | None:
        """Why a module cannot be recomputed; None when it can."""
        module = self._scheme.coverage.modules.get(key)
        layout = self._scheme.layouts.get(key)
        original = self.original(key)
        if self._scheme.foreign:
            return f"it was quantized by {self._scheme.foreign}"
        if module is None or not module.quantized:
            return "it is not quantized"
        if layout is None or not layout.names or layout.misfits or layout.missing:
            return "its scales are missing or do not go with it"
        if key in self._lacking:
            return "a scale that its like have is missing"
        if original is None:
            if experts_of(key) in self._apart:
                return "the base has its experts in one tensor, and not in a way that is known"
            return "the base has no such weight"
        stored = self.tensors[module.weight]
        if original.tensor.dtype not in _FLOATS:
            return f"the base's weight is {original.tensor.dtype}"
        if not any(_fits(stored.tensor, original.tensor, name) for name in layout.names):
            return "its shape is not that of the base's weight"
        for part in self.parts(module):
            if reason := self._damage(self._scheme, part):
                return reason
        return None

    def loss(self, key: str) -> str | None:
        """Why the base's weight of a module without an obstacle is of no use; None when it is."""
        original = self.original(key)
        assert original is not None
        reason = self._damage(self._base, original)
        return f"the base's weight is of no use: {reason}" if reason else None

    def case(self, key: str) -> Case:
        """What a module without an obstacle is held against."""
        scheme, module = self._scheme, self._scheme.coverage.modules[key]
        original, stored = self.original(key), self.tensors[module.weight]
        assert original is not None
        layouts = tuple(
            name
            for name in scheme.layouts[key].names
            if _fits(stored.tensor, original.tensor, name)
        )
        if scheme.quantization is not None:
            claimed = known_algorithm(claimed_algorithm(scheme.quantization, module.name))
            layouts = tuple(sorted(layouts, key=lambda n: not (claimed and claimed.layout == n)))
        first: list[str] = [self._neighbours, original.tensor.dtype]
        hosts = tuple(sorted(HOSTS, key=lambda h: first.index(h) if h in first else 2))
        smoothed = "pre_quant_scale" in scheme.scales.get(module.name, {})
        nvfp4_awq = layouts[0] == "nvfp4" and "NVFP4_AWQ" in self._algorithms
        awq = nvfp4_awq or layouts[0].startswith("int4")
        # What the manifest does not select was put there, and no norm follows it.
        selected = scheme.coverage.selected
        exported = selected is None or key in selected
        front = self._norm_in_front(module, original) if awq and exported and not smoothed else None
        folds = tuple(self._folds(module, original)) if awq and not smoothed else ()
        return Case(
            key=key,
            module=module,
            layouts=layouts,
            hosts=hosts,
            scale_hosts=_distinct_hosts(hosts, original.tensor.dtype),
            shares=tuple(self._shares(key, layouts)),
            folds=(front,) if front else folds,
            folded=front is not None,
            searched=awq,
            rescaled=self._rescaled(module) if nvfp4_awq else None,
            lacking=self._lacking_member(key, layouts),
        )

    def _rescaled(self, module: Module) -> Axis | None:
        """The axis along which NVFP4_AWQ may have moved a factor: not when it is still there, or
        never was, because what would own it is not quantized."""
        parent, _, leaf = module.key.rpartition(".")
        axis, owner = _RESCALED.get(leaf, (None, ""))
        owning = self._scheme.coverage.modules.get(f"{parent}.{owner}")
        if owning is None or not owning.quantized:
            return None
        return None if "pre_quant_scale" in self._scheme.scales.get(owning.name, {}) else axis

    def bonds(self, case: Case) -> Bonds:
        """Which modules the second scale of a searched one goes with."""
        parent, _, leaf = case.key.rpartition(".")
        group = next((leaves for leaves in FUSED if leaf in leaves), (leaf,))
        near = self._of_one_input(case, self._siblings.get(parent, ()))
        equal = tuple(key for key in near if key.rpartition(".")[2] in group)
        # Of a group that is quantized in part, a composed one has the scale of the whole.
        whole = [other for other in group if f"{parent}.{other}" in self._scheme.coverage.modules]
        spans = [equal] if len(equal) == len(whole) else []
        # Where all of a layer follows one norm, all of it may share. Experts have their own.
        if spans and self._smoothing(case.key) is None and ".experts." not in case.key:
            layer = self._layers.get(parent.rpartition(".")[0], ())
            spans += [near, self._of_one_input(case, layer)]
        axis, owner = _RESCALED.get(leaf, (None, ""))
        movers = (name for name, (_, whose) in _RESCALED.items() if whose == owner != name)
        mover = next(movers, "") if axis == case.rescaled == "columns" else ""
        pair = {case.key, f"{parent}.{mover}"}
        # What the manifest does not select was put there: nothing was moved for it.
        selected = self._scheme.coverage.selected
        bound = bool(mover) and (selected is None or pair <= selected)
        return Bonds(equal, tuple(dict.fromkeys(spans)), f"{parent}.{mover}" if bound else None)

    def _of_one_input(self, case: Case, keys: Iterable[str]) -> tuple[str, ...]:
        """Those of some modules that may have the input of a searched one."""
        columns, smoothing = self._columns(case.key), self._smoothing(case.key)
        return tuple(
            key
            for key in keys
            if self._alike(key, case.layouts)
            and self._columns(key) == columns
            and self._smoothing(key) == smoothing
        )

    def _smoothing(self, key: str) -> bytes | str | None:
        """What factors that lie beside a weight are known by, None where there are none."""
        module = self._scheme.coverage.modules[key]
        scale = self._scheme.scales.get(module.name, {}).get("pre_quant_scale")
        return None if scale is None else self._scheme.digests.get(scale.name, scale.name)

    def parts(self, module: Module) -> list[Stored]:
        """The weight of a module and the scales that its values depend on."""
        scales = self._scheme.scales.get(module.name, {})
        names = [module.weight, *(scales[suffix].name for suffix in PARTS if suffix in scales)]
        return [self.tensors[name] for name in names]

    def original(self, key: str) -> Stored | None:
        """The weight of a module of the base, None where it has no such module."""
        module = self._base.coverage.modules.get(key)
        return None if module is None else self.originals[module.weight]

    def norms(self, key: str) -> tuple[Stored, Stored]:
        """A norm of the scheme and the base's."""
        return (
            self.tensors[self._scheme.tensors[key][0]],
            self.originals[self._base.tensors[key][0]],
        )

    def _damage(self, side: SchemeEvidence, part: Stored) -> str | None:
        """What other rules say of a tensor's bytes."""
        shard, identity = part.shard, part.shard.identity
        if side is self._scheme and part.name in self._twice:
            return "two shards hold a tensor of it"
        if any(defect.kind == "overlap" for defect in shard.defects):
            return "two tensors claim the same bytes"
        assert shard.header is not None
        end = shard.header.data_start + part.tensor.data_offsets[1]
        if identity is None or end > identity.size:
            return "its shard ends before its data does"
        if part.name in side.flaws:
            if side is self._base:
                return "it holds NaN or infinity"
            return f"{part.name.rpartition('.')[2]} holds values that it may not have"
        if part.tensor.dtype not in STORED:
            return f"{part.tensor.dtype} has no numbers here"
        return None

    def _shares(self, key: str, layouts: tuple[LayoutName, ...]) -> Iterator[tuple[str, ...]]:
        """The likeliest first: with FP8 only fused experts share, with NVFP4 all linears that
        have the same input. Of a group that is quantized in part, ModelOpt's scale is that of
        the quantized members, and a composed one's that of the whole."""
        alone = (key,)
        if not set(layouts) & set(_SHARING):
            yield alone
            return
        columns, group = self._columns(key), _fused_with(key)
        parent = key.rpartition(".")[0]
        # Architectures of which nothing is known here may name such linears otherwise.
        alike = (k for k in self._siblings.get(parent, ()) if self._alike(k, layouts))
        whole = [k for k in group or alike if self._columns(k) == columns]
        part = tuple(k for k in whole if self._alike(k, layouts))
        seldom = not group or (layouts[0] in ("fp8", "fp8-block") and ".experts." not in key)
        found = [alone, part, tuple(whole)] if seldom else [part, tuple(whole), alone]
        if layouts[0].startswith("nvfp4"):
            beside = [k for k in self._beside(key) if self._columns(k) == columns]
            if not set(beside) <= set(whole):
                found += [tuple(k for k in beside if self._alike(k, layouts)), tuple(beside)]
        yield from dict.fromkeys(found)

    def _beside(self, key: str) -> tuple[str, ...]:
        """All that follows the norm in front of a module: more than is fused where attention and
        MLP lie side by side."""
        front = self._front(key)
        layer = key.rpartition(".")[0].rpartition(".")[0]
        linears = self._linears.get(layer, ()) if front else ()
        return tuple(k for k in linears if self._front(k) == front)

    def _front(self, key: str) -> str | None:
        """The norm in front of a module; None where its architecture does not say which that is."""
        keys = (f"{norm}.weight" for norm in norms_before(key) or ())
        return next((key for key in keys if key in self._scheme.tensors), None)

    def _lacking_member(self, key: str, layouts: tuple[LayoutName, ...]) -> str | None:
        """A module that shares the scale of this one, and of whose base nothing is known."""
        if not set(layouts) & set(_SHARING):
            return None
        members = (k for k in _fused_with(key) if self._alike(k, layouts))
        return next((k for k in members if self._columns(k) is None), None)

    def _alike(self, key: str, layouts: tuple[LayoutName, ...]) -> bool:
        layout = self._scheme.layouts.get(key)
        return layout is not None and not set(layout.names).isdisjoint(layouts)

    def _columns(self, key: str) -> int | None:
        original = self.original(key)
        usable = original is not None and self._damage(self._base, original) is None
        if original is None or not usable or original.tensor.dtype not in _FLOATS:
            return None
        return original.tensor.shape[1] if len(original.tensor.shape) == 2 else None

    def _norm_in_front(self, module: Module, original: Stored) -> str | None:
        """The norm that a module's factors are in, if they lie nowhere else, changed or not."""
        key = self._front(module.key)
        return key if key and key in self._base.tensors and self._fits(key, original) else None

    def _folds(self, module: Module, original: Stored) -> Iterator[str]:
        """The norms above a module that an export changed, as AWQ does."""
        above = module.key
        while above:
            above = above.rpartition(".")[0]
            yield from (key for key in self._norms.get(above, ()) if self._fits(key, original))

    def _fits(self, key: str, original: Stored) -> bool:
        """Whether a norm, here and in base, has a number for each column of a weight."""
        columns = original.tensor.shape[1]
        return all(
            norm.tensor.shape == (columns,) and norm.tensor.dtype in _FLOATS
            for norm in self.norms(key)
        )


def _norms(scheme: SchemeEvidence, base: SchemeEvidence) -> dict[str, list[str]]:
    """The keys of norms' weights that both have and that may differ, by what they are in."""
    found: dict[str, list[str]] = defaultdict(list)
    for key, (name, tensor, _) in scheme.tensors.items():
        module = key.removesuffix(".weight")
        parent, _, leaf = module.rpartition(".")
        if module == key or "norm" not in leaf or key not in base.tensors:
            continue
        other, original, _ = base.tensors[key]
        mine, theirs = scheme.digests.get(name), base.digests.get(other)
        same = mine is not None and mine == theirs and tensor.dtype == original.dtype
        if {tensor.dtype, original.dtype} <= set(_FLOATS) and not same:
            found[parent].append(key)
    return found


def _fused_with(key: str) -> tuple[str, ...]:
    """The keys of the modules that kernels fuse with this one, itself too; none if none are."""
    parent, _, leaf = key.rpartition(".")
    group = next((leaves for leaves in FUSED if leaf in leaves), ())
    return tuple(f"{parent}.{member}" for member in group)


def _by_name(side: SchemeEvidence) -> dict[str, Stored]:
    return {name: Stored(name, tensor, shard) for name, tensor, shard in side.checkpoint.items()}


def _below(keys: Iterable[str], levels: int) -> dict[str, list[str]]:
    """The modules so many levels below each parent."""
    found: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        found[".".join(key.split(".")[:-levels])].append(key)
    return found


def _fits(stored: Tensor, original: Tensor, layout: LayoutName) -> bool:
    """Whether a stored weight unpacks to the base's shape."""
    coding = CODINGS[layout]
    if len(stored.shape) != 2:
        return False
    rows, columns = stored.shape
    return original.shape == (rows * coding.rows, columns * coding.columns)


def _host_of(scheme: SchemeEvidence) -> str:
    """The dtype of most of what a scheme has not quantized."""
    nbytes: Counter[str] = Counter()
    for name, tensor, _ in scheme.tensors.values():
        if tensor.dtype in HOSTS and not scale_suffix(name):
            nbytes[tensor.dtype] += tensor.nbytes
    return max(sorted(nbytes), key=nbytes.__getitem__, default="")


def _distinct_hosts(hosts: Iterable[Host], base: str) -> tuple[Host, ...]:
    """One host of each set in which the values of a base weight are the same numbers."""
    distinct: dict[Host, Host] = {}
    for host in hosts:
        exact = host == "F32" and base in ("BF16", "F16")
        distinct.setdefault(base if exact else host, host)  # type: ignore[arg-type]
    return tuple(distinct.values())
