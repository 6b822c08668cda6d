"""How a thread shares a pass over memory with those that are awake: compiled code and a few shared words.

A pass has blocks. Whoever has the pass posts it, and takes block after block; others that are awake take some
of them, too. It waits only for blocks that were begun: nobody waits for a thread to come, and one that the
operating system has stopped, because another process wants its processor, holds up one block at most.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from pcsim.kernels.compiler import Function, jit

# llvmlite and Numba's code generation have no types: what the names below stand for is checked by nobody.
Value: TypeAlias = Any  # a value of the program that is being written
Builder: TypeAlias = Any  # writes instructions
Typed: TypeAlias = Any  # Numba's description of an argument
Generate: TypeAlias = Callable[[Typed, Builder, Typed, Sequence[Value]], Value]
Mail: TypeAlias = NDArray[np.int64]

# Words of the mail; those that different threads write lie in different lines of the cache.
TICKET = 0  # number of the pass, and how many of its blocks nobody has begun
DONE = 16  # blocks that helpers have done
AWAKE = 32  # helpers that look for work, or will soon
ADDRESS, OPERANDS = 48, 49  # of the function that does a block, and of what it wants
LEAVE = 50  # not 0: helpers go to sleep at once
BUSY = 51  # not 0: a pass is posted
GIVE_WAY = 52  # address of the system's function that lets others have the processor, or 0
WORDS = 64

BLOCK_BITS = 8  # of a ticket that count blocks
MOST_BLOCKS = (1 << BLOCK_BITS) - 1
TRIALS, TRIAL = 10, 1000  # of the length of a moment, and moments of each
LONGEST_MOMENT = 1e-6  # seconds; a pause takes a tenth of it on any processor
PAUSES = 32  # between two offers of the processor to whoever wants it

INDEX, NOTHING = ir.IntType(64), ir.VoidType()


def instruction(function: Callable[..., tuple[Typed, Generate]]) -> Callable[..., Any]:
    """Make what compiled code calls without the first argument, and whose instructions are ours."""
    return cast("Callable[..., Any]", intrinsic(function))


@instruction
def read(typing: Typed, mail: Typed, word: Typed) -> tuple[Typed, Generate]:
    """Return a word; nothing that follows is read before it."""

    def generate(context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value]) -> Value:
        return builder.load_atomic(_place(context, builder, signature, arguments), "acquire", 8)

    return types.int64(mail, types.intp), generate


@instruction
def write(typing: Typed, mail: Typed, word: Typed, value: Typed) -> tuple[Typed, Generate]:
    """Set a word; who reads it finds written whatever was written before."""

    def generate(context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value]) -> Value:
        builder.store_atomic(arguments[2], _place(context, builder, signature, arguments), "release", 8)
        return context.get_dummy_value()

    return types.void(mail, types.intp, types.int64), generate


@instruction
def add(typing: Typed, mail: Typed, word: Typed, value: Typed) -> tuple[Typed, Generate]:
    """Add to a word; return what it was."""

    def generate(context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value]) -> Value:
        place = _place(context, builder, signature, arguments)
        return builder.atomic_rmw("add", place, arguments[2], "acq_rel")

    return types.int64(mail, types.intp, types.int64), generate


@instruction
def swap(typing: Typed, mail: Typed, word: Typed, old: Typed, new: Typed) -> tuple[Typed, Generate]:
    """Set a word if it still has its old value; return whether it had."""

    def generate(context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value]) -> Value:
        place = _place(context, builder, signature, arguments)
        found = builder.cmpxchg(place, arguments[2], arguments[3], "acq_rel", "acquire")
        return builder.extract_value(found, 1)

    return types.boolean(mail, types.intp, types.int64, types.int64), generate


@instruction
def address_of(typing: Typed, value: Typed) -> tuple[Typed, Generate]:
    """Return where a value lies; it does until the function that asks returns."""

    def generate(context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value]) -> Value:
        place: Value = cgutils.alloca_once_value(builder, arguments[0])  # type: ignore[no-untyped-call]
        return builder.ptrtoint(place, INDEX)

    return types.intp(value), generate


@instruction
def block_function(typing: Typed, body: Typed, operands: Typed) -> tuple[Typed, Generate]:
    """Return the address of a function of (address of the operands, block) that calls a compiled one.

    Args:
        typing: by Numba.
        body: a compiled function of (operands, block).
        operands: a tuple; only its type counts.
    """
    given = operands, types.intp
    body.dispatcher.compile(given)
    made = body.dispatcher.overloads[given]

    def generate(context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value]) -> Value:
        name = builder.module.get_unique_name(f"{builder.function.name}.block")
        function = ir.Function(builder.module, ir.FunctionType(NOTHING, [INDEX, INDEX]), name)
        function.linkage = "internal"
        inside = ir.IRBuilder(function.append_basic_block())
        place = inside.inttoptr(function.args[0], context.get_value_type(operands).as_pointer())
        context.add_linking_libs([made.library])
        context.call_internal_no_propagate(
            inside, made.fndesc, made.signature, [inside.load(place), function.args[1]]
        )
        inside.ret_void()
        return builder.ptrtoint(function, INDEX)

    return types.intp(body, operands), generate


@instruction
def do(typing: Typed, function: Typed, operands: Typed, block: Typed) -> tuple[Typed, Generate]:
    """Do a block of a pass: call a function at an address with the address of its operands."""

    def generate(context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value]) -> Value:
        kind = ir.FunctionType(NOTHING, [INDEX, INDEX]).as_pointer()
        builder.call(builder.inttoptr(arguments[0], kind), arguments[1:])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


@instruction
def give_way(typing: Typed, function: Typed) -> tuple[Typed, Generate]:
    """Let others have the processor: call the system's function at this address."""

    def generate(context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value]) -> Value:
        kind = ir.FunctionType(ir.IntType(32), []).as_pointer()
        builder.call(builder.inttoptr(arguments[0], kind), [])
        return context.get_dummy_value()

    return types.void(types.intp), generate


@instruction
def rest(typing: Typed) -> tuple[Typed, Generate]:
    """Tell an x86 processor that this thread waits: whatever else runs on the core gets more of it."""

    def generate(context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value]) -> Value:
        if llvmlite.binding.get_default_triple().startswith("x86_64"):
            kind = ir.FunctionType(NOTHING, [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), kind), [])
        return context.get_dummy_value()

    return types.void(), generate


def _place(context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value]) -> Value:
    """Return a pointer to the word of the mail that the second argument names."""
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    return builder.gep(data, [arguments[1]])


def compiled(function: Function) -> Function:
    """Compile without any freedom to reorder."""
    return jit(function, error_model="numpy")


@compiled
def wait(mail: Mail, turn: int) -> None:
    """Let a moment pass; `turn` counts them."""
    rest()
    if turn % PAUSES == 0 and mail[GIVE_WAY] != 0:
        give_way(mail[GIVE_WAY])


@compiled
def help_out(mail: Mail, patience: int) -> None:
    """Take blocks of passes until none has come for so many moments, or all are to leave."""
    turn = 0
    while turn < patience and read(mail, LEAVE) == 0:
        ticket = read(mail, TICKET)
        left = ticket & MOST_BLOCKS
        if left == 0:
            turn += 1
            wait(mail, turn)
        elif swap(mail, TICKET, ticket, ticket - 1):
            do(read(mail, ADDRESS), read(mail, OPERANDS), left - 1)
            add(mail, DONE, 1)
            turn = 0
    add(mail, AWAKE, -1)


@compiled
def expect(mail: Mail, more: int) -> None:
    """Count on more helpers, or fewer, than before."""
    add(mail, AWAKE, more)


@compiled
def do_blocks(mail: Mail, function: int, operands: int, blocks: int) -> bool:
    """Do all blocks of a pass, with whoever is awake; return whether anybody is.

    If another thread has posted a pass of its own, this one is done alone.

    Args:
        mail: of a crew.
        function: address that `block_function` has given.
        operands: address of its operands.
        blocks: at most `MOST_BLOCKS`.
    """
    awake: bool = read(mail, AWAKE) > 0
    if not awake or not swap(mail, BUSY, 0, 1):
        for block in range(blocks):
            do(function, operands, block)
        return awake
    # Nobody looks at these until the ticket says so, and all who had the ticket before are done.
    write(mail, ADDRESS, function)
    write(mail, OPERANDS, operands)
    write(mail, DONE, 0)
    write(mail, TICKET, (((read(mail, TICKET) >> BLOCK_BITS) + 1) << BLOCK_BITS) + blocks)
    others, left = blocks, blocks
    while left != 0:
        ticket = read(mail, TICKET)
        left = ticket & MOST_BLOCKS
        if left != 0 and swap(mail, TICKET, ticket, ticket - 1):
            do(function, operands, left - 1)
            others -= 1
    turn = 0
    while read(mail, DONE) != others:
        turn += 1
        wait(mail, turn)
    write(mail, BUSY, 0)
    return True


def new_mail() -> Mail:
    """Return the mail of a crew that is asleep."""
    mail = np.zeros(WORDS, np.int64)
    mail[GIVE_WAY] = _system_call()
    return mail


def moments(seconds: float) -> int:
    """Return how many moments of `help_out` take so long on this machine, however busy it is now.

    Nobody gives way meanwhile, and the shortest of some trials counts, each of which takes less than a turn
    on a processor that others want, too.
    """
    mail = np.zeros(WORDS, np.int64)
    help_out(mail, 1)
    shortest = LONGEST_MOMENT * TRIAL
    for _ in range(TRIALS):
        start = time.perf_counter()
        help_out(mail, TRIAL)
        shortest = min(shortest, time.perf_counter() - start)
    return int(TRIAL * seconds / shortest)


def compile_all() -> None:
    """Compile, or load from disk, what nobody else calls before helpers are needed."""
    mail = new_mail()
    expect(mail, 1)
    help_out(mail, 1)


def _system_call() -> int:
    """Return where the system's function that gives way is; 0 if there is none."""
    try:
        return cast("int", ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value)
    except (AttributeError, OSError, TypeError):  # not a POSIX system
        return 0
