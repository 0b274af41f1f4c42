"""Write resp/_speedups/_powers.h, the powers of five that `_double.h` multiplies by.

    python scripts/generate_powers.py > resp/_speedups/_powers.h

D. Lemire, "Number parsing at a gigabyte per second", Software: Practice and Experience 51 (2021),
section 5: of each power the 128 highest bits, those of a positive exponent truncated, those of a
negative one the reciprocal, rounded up. As a static const they cost nothing at import, where
computing them would take 26 ms.
"""

from __future__ import annotations

# The decimal exponents of doubles with a significand of up to 19 digits; below is 0, above inf.
LOWEST, HIGHEST = -342, 308


def significand(exponent: int) -> int:
    """Return the 128 highest bits of 5 ** exponent."""
    power: int = 5 ** abs(exponent)
    bits = power.bit_length()
    if exponent >= 0:
        return power << 128 - bits if bits <= 128 else power >> bits - 128
    # The reciprocal of a power of at most 64 bits is exact enough with 127 bits behind its own.
    value: int = (1 << (bits + 127 if exponent >= -27 else 2 * bits + 128)) // power + 1
    return value >> max(value.bit_length() - 128, 0)


def main() -> None:
    """Print the header."""
    print("/* Made by scripts/generate_powers.py: do not edit. High and low half of each power. */")
    print(f"#define RESP_LOWEST_POWER ({LOWEST})")
    print(f"#define RESP_HIGHEST_POWER {HIGHEST}")
    print(f"static const uint64_t resp_powers[{HIGHEST - LOWEST + 1}][2] = {{")
    for exponent in range(LOWEST, HIGHEST + 1):
        high, low = divmod(significand(exponent), 1 << 64)
        print(f"    {{0x{high:016x}, 0x{low:016x}}}, /* 5^{exponent} */")
    print("};")


if __name__ == "__main__":
    main()
