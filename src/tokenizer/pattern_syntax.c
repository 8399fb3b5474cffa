/* pattern_syntax.c - from Oniguruma's Ruby syntax, which tokenizer.json files are written for, to PCRE2's.
 *
 * What both read alike is copied; what they read differently is spelled out (\s and \w by Unicode property, \h, \v, \b, \uXXXX,
 * scripts without their extensions); everything else is refused. That leaves no back references, recursion, conditions, verbs
 * or call-outs. */
#include "base/error.h"
#include "tokenizer/pattern.h"
#include "tokenizer/utf8.h"
#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define WORD_ITEMS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define WORD "[" WORD_ITEMS "]"
#define HEX_ITEMS "0-9A-Fa-f"

enum { NAME_BYTES = 32, ITEM_BYTES = 128, REPEAT_MOST = 1000 };

typedef struct syntax {
    const char *text;
    size_t bytes, at;
    size_t depth; /* open groups */
    const octavo_json_field *field;
    octavo_byte_buffer *out;
} syntax;

static octavo_status emit(syntax *s, const char *text) { return octavo_byte_buffer_append(s->out, text, strlen(text)); }

static octavo_status emit_format(syntax *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
static octavo_status emit_format(syntax *s, const char *format, ...)
{
    char text[ITEM_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return emit(s, text);
}

static octavo_status refuse(const syntax *s, const char *what)
{
    return octavo_json_fail(OCTAVO_E_UNSUPPORTED, s->field, "has %s at byte %zu, which is not supported", what, s->at);
}

static bool begins(const syntax *s, const char *word)
{
    const size_t length = strlen(word);
    return s->bytes - s->at >= length && memcmp(s->text + s->at, word, length) == 0;
}

/* ---- escapes ----------------------------------------------------------------------------------------------------- */

/* The name in PCRE2 of what Oniguruma calls `name`; scripts are the rest. */
static octavo_status emit_property(syntax *s, const char *name, bool negated)
{
    static const char *const LONG_NAMES[][2] = {
        { "letter", "L" }, { "mark", "M" }, { "number", "N" }, { "punctuation", "P" }, { "symbol", "S" }, { "separator", "Z" }, { "other", "C" },
        { "digit", "Nd" }, { "space", "White_Space" }, { "alpha", "Alphabetic" }, { "upper", "Uppercase" }, { "lower", "Lowercase" },
        { "alphabetic", "Alphabetic" }, { "white_space", "White_Space" }, { "uppercase", "Uppercase" }, { "lowercase", "Lowercase" },
        { "ideographic", "Ideographic" }, { "emoji", "Emoji" }, { "any", "Any" },
    };
    static const char CATEGORIES[] = " L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp C Cc Cf Cs Co Cn ";
    const char sign = negated ? 'P' : 'p';
    for (size_t i = 0; i < sizeof LONG_NAMES / sizeof *LONG_NAMES; i++)
        if (strcasecmp(name, LONG_NAMES[i][0]) == 0) return emit_format(s, "\\%c{%s}", sign, LONG_NAMES[i][1]);
    const char second = strlen(name) == 2 ? (char)tolower((unsigned char)name[1]) : '\0';
    const char category[] = { ' ', (char)toupper((unsigned char)name[0]), second ? second : ' ', second ? ' ' : '\0', '\0' };
    if (strlen(name) <= 2 && strstr(CATEGORIES, category))
        return emit_format(s, "\\%c{%.*s}", sign, (int)strlen(name), category + 1);
    return emit_format(s, "\\%c{sc:%s}", sign, name);
}

static octavo_status read_property(syntax *s, bool negated)
{
    char name[NAME_BYTES];
    size_t length = 0;
    if (!begins(s, "{")) return refuse(s, "a property without braces");
    s->at++;
    if (begins(s, "^")) {
        negated = !negated;
        s->at++;
    }
    for (; s->at < s->bytes && s->text[s->at] != '}'; s->at++) {
        const char c = s->text[s->at];
        const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
        if (!plain || length + 1 >= NAME_BYTES) return refuse(s, "an odd name of a property");
        name[length++] = c;
    }
    if (s->at == s->bytes || !length) return refuse(s, "a property without a name");
    s->at++;
    name[length] = '\0';
    return emit_property(s, name, negated);
}

/* `digits` hexadecimal digits, or those up to a brace where it is 0. */
static octavo_status read_point(syntax *s, size_t digits)
{
    uint32_t point = 0;
    size_t count = 0;
    for (; s->at < s->bytes && (digits ? count < digits : count < 8); count++, s->at++) {
        const char c = s->text[s->at];
        const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) break;
        point = point << 4 | (uint32_t)digit;
    }
    if (digits ? count != digits : !count || !begins(s, "}")) return refuse(s, "an unfinished hexadecimal number");
    s->at += digits == 0;
    if (digits == 2 && point >= 0x80) return refuse(s, "a byte that is no character");
    return emit_format(s, "\\x{%" PRIX32 "}", point);
}

typedef enum place { OUTSIDE, IN_CLASS } place;

/* What stands behind a backslash, which is behind us. */
static octavo_status read_escape(syntax *s, place where)
{
    if (s->at == s->bytes) return refuse(s, "a backslash at the end");
    const char c = s->text[s->at++];
    const char *items = NULL; /* of a set, which needs its own brackets outside of a class */
    switch (c) {
    case 's': return emit(s, "\\p{White_Space}");
    case 'S': return emit(s, "\\P{White_Space}");
    case 'd': return emit(s, "\\p{Nd}");
    case 'D': return emit(s, "\\P{Nd}");
    case 'w': case 'W': items = WORD_ITEMS; break;
    case 'h': case 'H': items = HEX_ITEMS; break;
    case 'p': case 'P': return read_property(s, c == 'P');
    case 'u': return read_point(s, 4);
    case 'x':
        if (!begins(s, "{")) return read_point(s, 2);
        s->at++;
        return read_point(s, 0);
    case 'v': return emit(s, "\\x0b");
    case 'n': case 'r': case 't': case 'f': case 'a': case 'e': return emit_format(s, "\\%c", c);
    case 'b':
        if (where == IN_CLASS) return emit(s, "\\x08");
        return emit(s, "(?:(?<=" WORD ")(?!" WORD ")|(?<!" WORD ")(?=" WORD "))");
    case 'B':
        if (where == IN_CLASS) break;
        return emit(s, "(?:(?<=" WORD ")(?=" WORD ")|(?<!" WORD ")(?!" WORD "))");
    case 'A': case 'z': case 'Z':
        if (where == OUTSIDE) return emit_format(s, "\\%c", c);
        break;
    default: break;
    }
    if (items && where == OUTSIDE) return emit_format(s, "[%s%s]", c < 'a' ? "^" : "", items);
    if (items && c >= 'a') return emit(s, items);
    if ((uint8_t)c < 0x80 && c > ' ' && !(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9'))
        return emit_format(s, "\\%c", c);
    if (c == ' ') return emit(s, " ");
    s->at--;
    return refuse(s, "an escape");
}

/* ---- classes, groups, repeats ------------------------------------------------------------------------------------ */

static octavo_status read_class(syntax *s)
{
    OCTAVO_TRY(emit(s, "["));
    if (begins(s, "^")) {
        s->at++;
        OCTAVO_TRY(emit(s, "^"));
    }
    if (begins(s, "]")) return refuse(s, "an empty class");
    while (s->at < s->bytes && s->text[s->at] != ']') {
        if (begins(s, "[")) return refuse(s, "a class within a class");
        if (begins(s, "&&")) return refuse(s, "an intersection of classes");
        const char c = s->text[s->at++];
        if (c == '\\') OCTAVO_TRY(read_escape(s, IN_CLASS));
        else OCTAVO_TRY(octavo_byte_buffer_append(s->out, &c, 1));
    }
    if (s->at == s->bytes) return refuse(s, "a class without an end");
    s->at++;
    return emit(s, "]");
}

static octavo_status read_group(syntax *s)
{
    static const char *const KINDS[] = { "?:", "?=", "?!", "?<=", "?<!", "?>", "?i:", "?-i:" };
    s->depth++;
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++)
        if (begins(s, KINDS[i])) {
            s->at += strlen(KINDS[i]);
            return emit_format(s, "(%s", KINDS[i]);
        }
    if (s->at == 1 && begins(s, "?i)")) { /* elsewhere the two disagree about how far it goes */
        s->depth--;
        s->at += 3;
        return emit(s, "(?i)");
    }
    if (begins(s, "?") || begins(s, "*")) return refuse(s, "an unknown kind of group");
    return emit(s, "(?:"); /* nothing can refer to what it captures */
}

/* Reads digits; -1: none, or more than REPEAT_MOST. */
static int read_count(syntax *s)
{
    int count = -1;
    for (; s->at < s->bytes && s->text[s->at] >= '0' && s->text[s->at] <= '9'; s->at++) {
        count = (count < 0 ? 0 : count) * 10 + (s->text[s->at] - '0');
        if (count > REPEAT_MOST) return -1;
    }
    return count;
}

/* {n}, {n,} or {n,m}. What may follow means something else in Ruby: {n}? is optional, {n,m}+ repeats. */
static octavo_status read_interval(syntax *s)
{
    const int least = read_count(s);
    const bool fixed = begins(s, "}");
    int most = least;
    if (least < 0) return refuse(s, "an odd interval");
    OCTAVO_TRY(emit_format(s, "{%d", least));
    if (!fixed) {
        if (!begins(s, ",")) return refuse(s, "an odd interval");
        s->at++;
        OCTAVO_TRY(emit(s, ","));
        if (!begins(s, "}")) {
            most = read_count(s);
            if (most < least) return refuse(s, "an odd interval");
            OCTAVO_TRY(emit_format(s, "%d", most));
        }
        if (!begins(s, "}")) return refuse(s, "an odd interval");
    }
    s->at++;
    if (begins(s, "+") || begins(s, "*") || begins(s, "{") || (fixed && begins(s, "?"))) return refuse(s, "an interval that is repeated");
    return emit(s, "}");
}

octavo_status octavo_pattern_translate(const char *expression, size_t bytes, const octavo_json_field *field, octavo_byte_buffer *out)
{
    syntax s = { expression, bytes, 0, 0, field, out };
    if (!bytes) return octavo_json_fail(OCTAVO_E_FORMAT, field, "is empty");
    while (s.at < bytes) {
        const char c = s.text[s.at++];
        switch (c) {
        case '\\': OCTAVO_TRY(read_escape(&s, OUTSIDE)); break;
        case '[': OCTAVO_TRY(read_class(&s)); break;
        case '(': OCTAVO_TRY(read_group(&s)); break;
        case '{': OCTAVO_TRY(read_interval(&s)); break;
        case ']': case '}': OCTAVO_TRY(emit_format(&s, "\\%c", c)); break;
        case ')':
            if (s.depth-- == 0) return refuse(&s, "a group that ends without a start");
            OCTAVO_TRY(emit(&s, ")"));
            break;
        default: OCTAVO_TRY(octavo_byte_buffer_append(out, &c, 1)); break;
        }
    }
    return s.depth ? refuse(&s, "a group without an end") : OCTAVO_OK;
}
