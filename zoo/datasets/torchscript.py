"""TorchScript of strangers: opened only where its graph holds operations that compute.

Loading TorchScript is no unpickling, although its archive has `.pkl` entries: torch's own reader in
C++ (torch/csrc/jit/serialization/unpickler.cpp) takes tensors, numbers, texts and containers from
them and knows no other types than those that the archive's TorchScript declares; it imports no
module and calls no Python. But the code is a program: `torch.from_file` writes files, other
libraries register operations that do (torchvision's `image::write_file`), and `__setstate__` and
hooks are run when it is loaded or called. So an archive is refused that has these, and one with an
operation beyond a list of those that only compute; all methods of all its parts count, called or
not. What is left can use up memory and time.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from converters.errors import one_line

_TENSORS = """
abs abs_ acos add add_ addcdiv addcdiv_ addcmul addcmul_ addmm alias all amax amin any arange
argmax argmin asin atan atan2 baddbmm bitwise_and bitwise_not bitwise_or bitwise_xor bmm
broadcast_tensors broadcast_to cat cdist ceil chunk clamp clamp_ clamp_max clamp_max_ clamp_min
clamp_min_ clone complex concat constant_pad_nd contiguous copy_ cos cosh cross cumprod cumsum
detach detach_ diff div div_ dropout dropout_ dstack einsum eq erf exp exp_ expand expand_as
expand_copy expm1 eye fft_fft2 fft_ifft2 fft_irfft fft_irfft2 fft_irfftn fft_rfft fft_rfft2
fft_rfftn fill fill_ flatten flip floor floor_ floor_divide floor_divide_ fmod frac full full_like
gather ge gt hstack hypot imag index index_add index_put index_put_ index_select is_complex
is_floating_point isclose isfinite isinf isnan le lerp lerp_ lift_fresh linalg_vector_norm
linspace log log10 log1p log2 logical_and logical_not logical_or logical_xor logsumexp lt mT
masked_fill masked_fill_ masked_select matmul max maximum mean median meshgrid min minimum mm
movedim mul mul_ nan_to_num narrow ne neg neg_ new_full new_ones new_zeros nonzero norm numel
numpy_T ones ones_like outer permute pow pow_ prod real reciprocal reciprocal_ remainder repeat
repeat_interleave reshape reshape_as roll rot90 round round_ rsqrt rsub scatter scatter_
scatter_add select select_scatter sigmoid sigmoid_ sign sign_ sin sinc sinh size slice
slice_scatter sort split split_with_sizes sqrt sqrt_ square squeeze squeeze_ stack std std_mean
sub sub_ sum swapaxes swapdims t tan tanh tanh_ tensor tensor_split tile to topk transpose
transpose_ tril tril_ triu triu_ true_divide trunc type_as unbind unflatten unfold unsafe_chunk
unsafe_split unsqueeze unsqueeze_ var var_mean view view_as view_as_complex view_as_real vstack
where zero_ zeros zeros_like
"""
_LAYERS = """
__interpolate _adaptive_avg_pool2d _convolution _native_multi_head_attention _softmax
_upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_lanczos2d_aa _upsample_nearest_exact1d
_upsample_nearest_exact2d _upsample_nearest_exact3d adaptive_avg_pool1d adaptive_avg_pool2d
adaptive_avg_pool3d adaptive_max_pool2d affine_grid_generator alpha_dropout avg_pool1d avg_pool2d
avg_pool3d batch_norm bilinear celu channel_shuffle col2im conv1d conv2d conv3d conv_transpose1d
conv_transpose2d conv_transpose3d convolution elu elu_ feature_dropout feature_dropout_ gelu gelu_
glu grid_sampler grid_sampler_2d group_norm hardsigmoid hardsigmoid_ hardswish hardswish_ hardtanh
hardtanh_ im2col instance_norm layer_norm leaky_relu leaky_relu_ linear log_sigmoid log_softmax
max_pool1d max_pool2d max_pool3d mish mish_ native_batch_norm native_group_norm native_layer_norm
pad pixel_shuffle pixel_unshuffle prelu reflection_pad1d reflection_pad2d relu relu6 relu6_ relu_
replication_pad1d replication_pad2d rms_norm scaled_dot_product_attention selu selu_ silu silu_
softmax softplus threshold threshold_ upsample_bicubic2d upsample_bilinear2d upsample_linear1d
upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d
"""
_LANGUAGE = """
Bool Complex Float FloatImplicit Int IntImplicit ScalarImplicit __and__ __contains__
__derive_index __getitem__ __is__ __isnot__ __not__ __or__ __range_length append copy cpu device
dim element_size extend floordiv format get_device insert is_autocast_enabled is_contiguous
is_grad_enabled is_scripting item items keys len list neg ord pop reverse str values warn
"""
_PRIM = """
Constant DictConstruct GetAttr If ListConstruct ListUnpack Loop NumToTensor RaiseException
TupleConstruct TupleIndex TupleSlice TupleUnpack Uninitialized abs data device dtype is_cpu
is_cuda is_meta is_mkldnn is_nested is_quantized is_sparse isinstance itemsize layout max min ndim
requires_grad shape tolist type unchecked_cast unchecked_unwrap_optional
"""
ALLOWED = frozenset(
    f"aten::{name}" for name in (_TENSORS + _LAYERS + _LANGUAGE).split()
) | frozenset(f"prim::{name}" for name in _PRIM.split())
# Run by loading or calling, apart from `forward`; types whose readers are written in C++.
_UNSEEN = {
    "__setstate__": re.compile(rb"\b__setstate__\b"),
    "a hook": re.compile(rb"\b__forward_(pre_)?hooks__\s*=\s*\[\s*[^\]\s]"),
    "a class in C++": re.compile(rb"\btorch\.classes\b"),
}


def load_torchscript(path: Path, torch: Any) -> Any:
    """Load a TorchScript module that only computes, on the CPU, in evaluation mode.

    Args:
        path: the archive.
        torch: the library, which not every installation has.

    Raises:
        ValueError: another file, or a module that may do more; names the operation.
    """
    archive = _rewritten(path)
    try:
        # torch would have us use torch.export, whose files are tied to its version.
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            network: Any = torch.jit.load(archive, map_location="cpu").eval()
    except RuntimeError as error:
        raise ValueError(f"{path}: expected TorchScript, found: {one_line(error)[-200:]}") from None
    for name in sorted(set(_operations(network, torch)) - ALLOWED):
        raise ValueError(
            f"{path}: expected a model of operations that only compute, found '{name}', which is "
            "none of those that are known to touch no file; export the network as ONNX"
        )
    return network


def _rewritten(path: Path) -> io.BytesIO:
    """Return the archive written anew: what is looked at here is what torch reads."""
    found = io.BytesIO()
    try:
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(found, "w") as ours:
            names = archive.namelist()
            _check_entries(path, names)
            for name in names:
                content = archive.read(name)
                if "/code/" in name:
                    _check_text(path, content)
                ours.writestr(name, content)
    # A broken or locked archive, as its reader finds out.
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError):
        raise ValueError(_expected(path, "another file")) from None
    found.seek(0)
    return found


def _check_entries(path: Path, names: list[str]) -> None:
    entries = [name.partition("/")[2] for name in names]
    is_script = "constants.pkl" in entries and any(name.startswith("code/") for name in entries)
    # An old layout, which torch still reads in another way.
    if not is_script or "model.json" in entries or len(set(names)) < len(names):
        what = "a checkpoint of torch.save" if "data.pkl" in entries else "another file"
        raise ValueError(_expected(path, what))


def _expected(path: Path, found: str) -> str:
    return (
        f"{path}: expected TorchScript, found {found}: "
        "export the network by torch.jit.trace(...).save(...), or as ONNX"
    )


def _check_text(path: Path, content: bytes) -> None:
    for what, pattern in _UNSEEN.items():
        if pattern.search(content):
            raise ValueError(
                f"{path}: expected a model of operations that only compute, found {what}, which "
                "is run unseen; export the network as ONNX"
            )


def _operations(network: Any, torch: Any) -> Iterator[str]:
    """Yield the operations of all methods of a module and its parts, with those they call."""
    for module in network.modules():
        script = module._c
        for name in script._method_names():
            graph = script._get_method(name).graph.copy()
            torch._C._jit_pass_inline(graph)
            yield from _of_block(graph)


def _of_block(block: Any) -> Iterator[str]:
    for node in block.nodes():
        yield str(node.kind())
        for inner in node.blocks():
            yield from _of_block(inner)
