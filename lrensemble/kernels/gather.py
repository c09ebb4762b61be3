"""Kernel that picks one number a sample out of every member: the probability of the true class."""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from lrensemble.kernels import compiled

__all__ = ["true_class"]

AHEAD = 128  # samples whose numbers are asked for before they are needed: some hundred nanoseconds
LINE = 16  # numbers that a processor fetches at a time: with fewer classes it has seen by itself what comes next
NEAR = 2  # which cache they are to be fetched into: L2, as the way into L1 is taken up by what is read now


def _begin_to_fetch(_typing: Any, array: Any, index: Any) -> Any:
    """How numba compiles a call that has ``array[index]`` fetched from memory, and does not wait for it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        builder.call(fetch, [address, number(0), number(NEAR), number(1)])  # to read, data
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


_prefetch: Any = intrinsic(_begin_to_fetch)


@compiled(
    types.void(
        types.Array(types.float32, 2, "C", readonly=True),
        types.Array(types.int64, 1, "C", readonly=True),
        types.int64,
        types.float32[:, ::1],
    )
)
def true_class(members: Any, own: Any, classes: Any, out: Any) -> None:
    """``out[j, n] = members[j, own[n]]``, for members (M, N·C) and the positions (N,) of the true classes in a row.

    Two members go side by side, so that the processor waits for two numbers at a time.
    """
    count, n = out.shape
    far = classes > LINE
    for j in range(0, count, 2):
        one, two = members[j], members[min(j + 1, count - 1)]
        out_one, out_two = out[j], out[min(j + 1, count - 1)]
        for i in range(n):
            if far:
                ahead = own[min(i + AHEAD, n - 1)]
                _prefetch(one, ahead)
                _prefetch(two, ahead)
            out_one[i] = one[own[i]]
            out_two[i] = two[own[i]]
