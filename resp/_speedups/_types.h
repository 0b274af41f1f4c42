/* What can be said of a type byte: one look at a table, where a chain of comparisons stood. */
#ifndef RESP_TYPES_H
#define RESP_TYPES_H

#define RESP_AGGREGATE 1
#define RESP_RUNS 2

static const unsigned char resp_types[256] = {
    ['*'] = RESP_AGGREGATE, ['%'] = RESP_AGGREGATE, ['~'] = RESP_AGGREGATE,
    ['|'] = RESP_AGGREGATE, ['>'] = RESP_AGGREGATE,
    ['$'] = RESP_RUNS,      [':'] = RESP_RUNS,      ['+'] = RESP_RUNS,
};

#endif
