"""Floating-point functions of the C library over many arguments, printed exactly: a wrong rounding, flag or vector lane shows."""
import hashlib
import math

FUNCTIONS = (math.sin, math.cos, math.tan, math.atan, math.exp, math.log1p, math.sqrt, math.cbrt, math.erf, math.gamma, math.asinh, math.tanh,
             math.expm1, math.log2, math.log10, math.lgamma, math.floor, math.frexp, math.modf)

for function in FUNCTIONS:
    digest = hashlib.md5()
    for i in range(1, 400):
        digest.update(repr(function(i * 0.1234567)).encode())
    print(function.__name__, digest.hexdigest()[:16], function(1.75))
digest = hashlib.md5()
for i in range(1, 300):
    x = (i * 7919 % 1009 - 500) * 1.7 ** (i % 60 - 30)
    digest.update(f"{x!r} {x:.3e} {x:.17g} {round(x, 2)} {x % 7.5} {math.fmod(x, 3.3)} {math.pow(abs(x), 0.37)} {int(x)} {x.hex()}".encode())
print("format", digest.hexdigest())
print("edge", 5e-324 / 2, 1e308 * 10, -0.0, math.inf - math.inf, 2 ** 0.5, 1 / 3, 0.1 + 0.2, float("1e-320"), math.nextafter(1, 2), math.ulp(1e300))
print("complex", (1 + 2j) ** 3.5, abs(3 + 4j), sum(0.1 for _ in range(10)), math.fsum(0.1 for _ in range(10)), math.hypot(3, 4, 12))
