"""How the matrix products of a loaded network are done, where plain bf16 or fp32 is not the answer.

`set_arithmetic` changes `nn.Linear` layers in place. Stored weights stay views of the file where they can:

    rows    16-bit weights, products in float32, a block of rows at a time, and convolutions in float32 (CPUs without
            bf16 instructions)
    int8    int8 weights by row, activations rounded to int8 by token, integer products; CUDA: bitsandbytes
    nf4     4-bit weights by block of 64, products in bf16; bitsandbytes on both kinds of device

Only the decoder layers of the language model are quantised; `check_quantised` proves it.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sa2va_lab.errors import LabError
from sa2va_lab.loading.devices import QUANTISED
from sa2va_lab.sa2va.modeling import Sa2VA
from sa2va_lab.sa2va.parts import is_decoder_matrix

ROWS = 2048  # of a weight at once in float32: 28 MiB at the width of the 8 B model
COMPILED = {"mode": "reduce-overhead", "dynamic": False}  # CUDA graphs; as torch.compile takes it
FEW_ROWS = 256  # so many stay in the processor's cache while they are rounded


def choose_products(*, device: str, dtype: torch.dtype) -> tuple[str, str]:
    """How 16-bit products are done, and why: ("native" | "rows", reason)."""
    if device != "cpu" or dtype == torch.float32:
        return "native", f"{device} multiplies {str(dtype).removeprefix('torch.')} itself"
    if dtype == torch.float16:
        return "rows", "rows: float16 products are done in float32 on a CPU"
    known = torch.cpu.get_capabilities()
    for feature in ("amx_bf16", "avx512_bf16"):
        if known.get(feature):
            return "native", f"native: this CPU has {feature}"
    return "rows", "rows: this CPU has no bf16 instructions (AMX, AVX512-BF16), so products are done in float32"


class RowLinear(nn.Linear):
    """A Linear whose 16-bit weight is widened to float32 a block of rows at a time; nothing is stored twice."""

    def forward(self, given: Tensor) -> Tensor:
        """(..., in) -> (..., out) in the dtype of `given`."""
        wide = given.float()
        parts = [F.linear(wide, rows.float()) for rows in self.weight.split(ROWS)]
        out = torch.cat(parts, dim=-1)
        return (out if self.bias is None else out + self.bias.float()).to(given.dtype)


class Wide:
    """A convolution with a 16-bit kernel, done in float32. Left to do it in bf16, a CPU without bf16 instructions takes
    thirty times as long."""

    def forward(self, given: Tensor) -> Tensor:
        """What the class behind this one makes of `given`, in its dtype."""
        wide = copy.copy(self)
        wide._parameters = {name: one if one is None else one.float() for name, one in self._parameters.items()}
        out = super(Wide, wide).forward(given.float())
        del wide  # before the result is there twice
        return out.to(given.dtype)


WIDENED = {kind: type(f"Wide{kind.__name__}", (Wide, kind), {}) for kind in (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)}
WIDENED[nn.Linear] = RowLinear


class Int8Linear(nn.Module):
    """A Linear with int8 weights (a scale for each row) that rounds its input to int8 (a scale for each token)."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        exact = linear.weight.detach()
        scale = torch.maximum(exact.amax(dim=1), -exact.amin(dim=1)).float().clamp_min(1e-12) / 127
        rounded = torch.empty_like(exact, dtype=torch.int8)
        blocks = (part.split(FEW_ROWS) for part in (exact, scale, rounded))
        for rows, size, small in zip(*blocks, strict=True):
            small.copy_(rows.float().div_(size[:, None]).round_())
        self.register_buffer("weight", rounded.t())  # (in, out), as the integer product wants it
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, given: Tensor) -> Tensor:
        """(..., in) -> (..., out) in the dtype of `given`."""
        wide = given.flatten(0, -2).float()
        scale = wide.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / 127
        out = torch._int_mm((wide / scale).round().to(torch.int8), self.weight).float() * scale * self.scale
        if self.bias is not None:
            out = out + self.bias.float()
        return out.to(given.dtype).unflatten(0, given.shape[:-1])


def set_arithmetic(model: Sa2VA, *, precision: str, device: str) -> str:
    """Makes `model` compute as `precision` says on `device`; returns what was done and why. Raises LabError for a
    precision whose library is not installed."""
    dtype = model.dtype
    products, reason = choose_products(device=device, dtype=dtype)
    if precision in QUANTISED:
        for name, module in list(model.named_modules()):
            if type(module) is nn.Linear:
                quantise_matrix(model, f"{name}.weight", precision=precision, device=device)
        count = check_quantised(model)["quantised"]
        reason = f"{count} matrices of the decoder layers in {precision}, all else in bf16; {reason}"
    if products == "rows":
        for module in model.modules():
            module.__class__ = WIDENED.get(type(module), type(module))  # the parameters stay the views that they are
    return reason


def compile_towers(model: Sa2VA) -> str:
    """Compiles what takes pixels, in place: InternVL's vision tower and SAM2's encoder, whose launches then become one.
    Returns what was done and what it costs.

    Of the answer nothing is compiled: its length changes from question to question. Measured on a CPU: no faster
    (demo: .69 s of CPU an image with and without, 29 s to compile), and not run: no CUDA device. By stage, a prototype
    on an H100 took 3.1 in the place of 8 ms (vision) and 10.9 in the place of 30 ms (SAM2's encoder).
    """
    towers = (getattr(model, "vision_model", None), model.grounding_encoder.vision_encoder)
    for tower in filter(None, towers):
        tower.compile(**COMPILED)
    encode = model.encode_canvas

    def encode_apart(canvas: Tensor):
        features = encode(canvas)
        return replace(features, image=features.image.clone())  # the next result is written where this one lies

    model.encode_canvas = encode_apart
    return "what takes pixels is compiled, for which the first image of each size waits"


def check_quantised(model: Sa2VA) -> dict[str, int]:
    """{"quantised", "kept"}: how many matrices are and are not quantised. Raises LabError when a decoder matrix was
    missed or anything else was touched."""
    counted = {"quantised": 0, "kept": 0}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or not isinstance(module, nn.Linear | Int8Linear):
            continue
        done = weight.dtype in (torch.int8, torch.uint8)
        if done != is_decoder_matrix(f"{name}.weight"):
            raise LabError(f"{name} {'was' if done else 'was not'} quantised, against the plan: do not use this model.")
        counted["quantised" if done else "kept"] += 1
    return counted


def quantise_matrix(model: Sa2VA, name: str, *, precision: str, device: str) -> None:
    """Puts a quantised layer on `device` in the place of the one whose weight has this name, if that is a matrix of a
    decoder layer. While a model is loaded, so that no more than one matrix is there at full width."""
    if is_decoder_matrix(name):
        owner = name.removesuffix(".weight")
        parent, _, child = owner.rpartition(".")
        made = _quantised(model.get_submodule(owner), precision=precision, device=device)
        setattr(model.get_submodule(parent), child, made)


def import_quantiser(precision: str):
    """bitsandbytes. Raises LabError where it is not installed."""
    try:
        import bitsandbytes
    except ImportError:
        raise LabError(f"{precision} needs bitsandbytes: pip install 'sa2va_lab[quant]', or use bf16.") from None
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of its casts once a matrix
    return bitsandbytes


def _quantised(linear: nn.Linear, *, precision: str, device: str) -> nn.Module:
    if precision == "int8" and device == "cpu":
        return Int8Linear(linear)
    bitsandbytes = import_quantiser(precision)
    sizes = {"input_features": linear.in_features, "output_features": linear.out_features}
    sizes["bias"] = linear.bias is not None
    if precision == "int8":
        with torch.device("meta"):  # elsewhere it would be filled with random numbers first
            made = bitsandbytes.nn.Linear8bitLt(**sizes, has_fp16_weights=False)
        made.weight = bitsandbytes.nn.Int8Params(linear.weight.cpu(), requires_grad=False, has_fp16_weights=False)
    else:
        with torch.device("meta"):
            made = bitsandbytes.nn.Linear4bit(**sizes, compute_dtype=torch.bfloat16, quant_type="nf4")
        made.weight = bitsandbytes.nn.Params4bit(
            linear.weight.clone(), requires_grad=False, quant_type="nf4", module=made
        )
    made.bias = linear.bias
    return made.to(device).requires_grad_(False)
