"""How to emit code that fills vector registers: what numba compiles is made of it; loaded only to be compiled.

Loops whose speed matters most are not left to the compiler's own vectoriser, which is slow to run and easily put off;
they are written in vectors of LLVM's intermediate language, which any machine can execute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba.core import cgutils

from volconv.engines.cpu.simd import register_bytes

if TYPE_CHECKING:
    from numba.core import types

INT, LONG = ir.IntType(32), ir.IntType(64)


class Emitter:
    """Emits vector code for one element type; addresses are integers."""

    def __init__(self, context: Any, builder: ir.IRBuilder, real: types.Type) -> None:
        self.builder = builder
        self.element = context.get_value_type(real)
        self.exact = isinstance(self.element, ir.IntType)
        self.size = context.get_abi_sizeof(self.element)
        self.bytes = register_bytes()
        self.lanes = self.bytes // self.size
        self.vector = ir.VectorType(self.element, self.lanes)
        self.zero = ir.Constant(self.vector, [ir.Constant(self.element, 0)] * self.lanes)

    # --- arithmetic

    def add(self, a: Any, b: Any) -> Any:
        """``a + b``."""
        return self.builder.add(a, b) if self.exact else self.builder.fadd(a, b)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """``a*b + c``, rounded once where the processor can."""
        if self.exact:
            return self.builder.add(self.builder.mul(a, b), c)
        name = f"llvm.fmuladd.v{self.lanes}f{8 * self.size}"
        return self.builder.call(self._function(name, self.vector, [self.vector] * 3), [a, b, c])

    def splat(self, value: Any, vector: ir.VectorType) -> Any:
        """One value in every lane."""
        undefined = ir.Constant(vector, ir.Undefined)
        first = self.builder.insert_element(undefined, value, INT(0))
        mask = ir.Constant(ir.VectorType(INT, vector.count), [0] * vector.count)
        return self.builder.shuffle_vector(first, undefined, mask)

    def shifted(self, low: Any, high: Any, count: int) -> Any:
        """The vector that begins so many elements into the first of two that follow each other."""
        mask = ir.Constant(ir.VectorType(INT, self.lanes), [INT(count + i) for i in range(self.lanes)])
        return self.builder.shuffle_vector(low, high, mask)

    # --- memory; addresses are integers

    def offset(self, address: Any, index: Any, size: int) -> Any:
        """The address of an element."""
        if isinstance(index, int):
            return self.builder.add(address, LONG(index * size))
        return self.builder.add(address, self.builder.mul(index, LONG(size)))

    def load(self, address: Any, kind: ir.Type, align: int) -> Any:
        """What lies at an address."""
        value = self.builder.load(self.builder.inttoptr(address, kind.as_pointer()))
        value.align = align
        return value

    def store(self, value: Any, address: Any) -> None:
        """Put a value at an address."""
        stored = self.builder.store(value, self.builder.inttoptr(address, value.type.as_pointer()))
        stored.align = self.size

    def load_long(self, address: Any, index: Any) -> Any:
        """One of an array of integers."""
        return self.load(self.offset(address, index, 8), LONG, 8)

    def load_vector(self, address: Any, index: int) -> Any:
        """One of a row of vectors, wherever it begins."""
        return self.load(self.offset(address, index, self.bytes), self.vector, self.size)

    def load_splat(self, address: Any, index: int) -> Any:
        """One of an array of elements, in every lane."""
        return self.splat(self.load(self.offset(address, index, self.size), self.element, self.size), self.vector)

    def store_lanes(self, value: Any, address: Any, first: Any, end: Any) -> None:
        """Store only lanes ``first`` to ``end`` of a vector; the address is that of lane 0, stored or not."""
        builder, numbers = self.builder, ir.VectorType(INT, self.lanes)
        number = ir.Constant(numbers, [INT(i) for i in range(self.lanes)])
        low, high = (self.splat(builder.trunc(x, INT), numbers) for x in (first, end))
        mask = builder.and_(builder.icmp_signed(">=", number, low), builder.icmp_signed("<", number, high))
        pointer = builder.inttoptr(address, self.vector.as_pointer())
        name = f"llvm.masked.store.v{self.lanes}{'i' if self.exact else 'f'}{8 * self.size}.p0"
        store = self._function(name, ir.VoidType(), [self.vector, pointer.type, INT, mask.type])
        builder.call(store, [value, pointer, INT(self.size), mask])

    def _function(self, name: str, result: ir.Type, arguments: list[ir.Type]) -> Any:
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(result, arguments), name)
