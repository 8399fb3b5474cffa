/* test_model_stream.c - characters that end in another token, stop strings that span tokens, what a terminal gets; random numbers. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "octavo/layer.h"
#include "model_stream.h"
#include <stdlib.h>
#include <string.h>

static const option_list NO_STOPS = { .count = 0 };

static void assert_released(const text_stream *stream, const char *expected)
{
    assert_int_equal(stream->released, strlen(expected));
    if (stream->released) assert_memory_equal(stream->text, expected, stream->released);
}

static stream_state add(text_stream *stream, const char *text) { return text_stream_add(stream, (const unsigned char *)text, strlen(text)); }

/* Fed in pieces of every size, the text is the same, and what is released is always whole characters. */
static void assert_cleaned(const char *bytes, const char *expected)
{
    for (size_t piece = 1; piece <= strlen(bytes); piece++) {
        text_stream stream = { .stops = &NO_STOPS };
        for (size_t at = 0; at < strlen(bytes); at += piece) {
            const size_t left = strlen(bytes) - at;
            assert_int_equal(text_stream_add(&stream, (const unsigned char *)bytes + at, left < piece ? left : piece), STREAM_OPEN);
            assert_true(!stream.text || text_is_utf8(stream.text, stream.released));
        }
        assert_int_equal(text_stream_end(&stream), STREAM_OPEN);
        assert_released(&stream, expected);
        text_stream_fini(&stream);
    }
}

static void test_characters(void **state)
{
    (void)state;
    assert_cleaned("plain", "plain");
    assert_cleaned("\xc3\xa9\xe2\x82\xac\xf0\x9f\x8c\x8d!", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x8c\x8d!"); /* 2, 3 and 4 bytes */
    assert_cleaned("a\xff" "b", "a\xef\xbf\xbd" "b");                                                /* never a lead byte */
    assert_cleaned("a\xe2\x82", "a\xef\xbf\xbd");                                                    /* cut off at the end */
    assert_cleaned("\xe2\x82x", "\xef\xbf\xbdx");                                                    /* cut off before the next */
    assert_cleaned("\xe2\xe2\x82\xac", "\xef\xbf\xbd\xe2\x82\xac");                                  /* a new one begins */
    assert_cleaned("\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd");                                          /* a longer form of '/' */
    assert_cleaned("\xe0\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    assert_cleaned("\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"); /* a surrogate */
    assert_cleaned("\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"); /* past U+10FFFF */
    assert_cleaned("\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf");
}

static void test_is_utf8(void **state)
{
    (void)state;
    assert_true(text_is_utf8("", 0) && text_is_utf8("a\xc3\xa9", 3));
    assert_false(text_is_utf8("a\xc3", 2) || text_is_utf8("\xa9", 1) || text_is_utf8("\xe0\x80\x80", 3) || text_is_utf8("\xf0\x80\x80\x80", 4));
}

/* What may begin a stop string is held back until it is known. */
static void test_stop_over_tokens(void **state)
{
    (void)state;
    const option_list stops = { .texts = { "END", "\xe2\x82\xac\xe2\x82\xac" }, .count = 2 };
    text_stream stream = { .stops = &stops };
    assert_int_equal(add(&stream, "one E"), STREAM_OPEN);
    assert_released(&stream, "one ");
    assert_int_equal(add(&stream, "NE"), STREAM_OPEN); /* "EN" was none, "E" may be */
    assert_released(&stream, "one EN");
    assert_int_equal(add(&stream, "ND and more"), STREAM_STOPPED);
    assert_released(&stream, "one EN");
    assert_int_equal(add(&stream, "later"), STREAM_STOPPED);
    assert_int_equal(text_stream_end(&stream), STREAM_STOPPED);
    assert_released(&stream, "one EN");
    text_stream_fini(&stream);

    assert_int_equal(add(&stream, "x\xe2\x82\xac"), STREAM_OPEN);
    assert_released(&stream, "x");
    assert_int_equal(add(&stream, "\xe2"), STREAM_OPEN);
    assert_released(&stream, "x");
    assert_int_equal(add(&stream, "\x82\xac"), STREAM_STOPPED);
    assert_released(&stream, "x");
    text_stream_fini(&stream);

    assert_int_equal(add(&stream, "the EN"), STREAM_OPEN);
    assert_int_equal(text_stream_end(&stream), STREAM_OPEN); /* nothing came: it was text */
    assert_released(&stream, "the EN");
    text_stream_fini(&stream);
}

/* Of several that end at the same place the longest counts; one that repeats itself is found. */
static void test_overlapping_stops(void **state)
{
    (void)state;
    const option_list stops = { .texts = { "b", "ab", "ccd" }, .count = 3 };
    text_stream stream = { .stops = &stops };
    assert_int_equal(add(&stream, "xab"), STREAM_STOPPED);
    assert_released(&stream, "x");
    text_stream_fini(&stream);
    assert_int_equal(add(&stream, "cccd"), STREAM_STOPPED);
    assert_released(&stream, "c");
    text_stream_fini(&stream);
}

/* Against a search over the whole text, for texts and stops of two letters. */
static void test_stops_exhaustively(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 1u << 10; code++)
        for (unsigned kind = 0; kind < 1u << 4; kind++) {
            char text[11] = "", stop[5] = "";
            for (int i = 0; i < 10; i++) text[i] = code >> i & 1 ? 'b' : 'a';
            for (unsigned i = 0; i < 1 + kind % 4; i++) stop[i] = kind >> i & 1 ? 'b' : 'a';
            const option_list stops = { .texts = { stop }, .count = 1 };
            text_stream stream = { .stops = &stops };
            for (int i = 0; i < 10; i += 3) text_stream_add(&stream, (const unsigned char *)text + i, i + 3 > 10 ? 1 : 3);
            text_stream_end(&stream);
            const char *found = strstr(text, stop);
            assert_int_equal(stream.state, found ? STREAM_STOPPED : STREAM_OPEN);
            if (found) text[found - text] = '\0';
            assert_released(&stream, text);
            text_stream_fini(&stream);
        }
}

static void written(int terminal, const char *text, size_t bytes, char out[256])
{
    FILE *file = tmpfile();
    text_write(file, terminal, text, bytes);
    rewind(file);
    out[fread(out, 1, 255, file)] = '\0';
    fclose(file);
}

static void test_terminal(void **state)
{
    (void)state;
    static const char TEXT[] = "a\x1b[2Jb\n\tc\rd\x7f\x07 \xc2\x9b \xc2\xa0\xc3\xa9";
    char out[256];
    written(0, TEXT, sizeof TEXT - 1, out);
    assert_string_equal(out, TEXT);
    written(1, TEXT, sizeof TEXT - 1, out);
    assert_string_equal(out, "a\xef\xbf\xbd[2Jb\n\tc\xef\xbf\xbd" "d\xef\xbf\xbd\xef\xbf\xbd \xef\xbf\xbd \xc2\xa0\xc3\xa9");
    written(1, "\0x", 2, out);
    assert_string_equal(out, "\xef\xbf\xbdx");
}

/* SplitMix64 from state 0, as its authors give it; and uniform numbers are uniform. */
static void test_random(void **state)
{
    (void)state;
    enum { COUNT = 100000, BINS = 16 };
    int64_t bins[BINS] = { 0 };
    assert_true(octavo_random_uniform(0, 0) == (float)(UINT64_C(0xe220a8397b1dcdaf) >> 40) * 0x1p-24f);
    assert_true(octavo_random_uniform(0, 1) == (float)(UINT64_C(0x6e789e6aa1b965f4) >> 40) * 0x1p-24f);
    for (uint64_t i = 0; i < COUNT; i++) {
        const float u = octavo_random_uniform(octavo_random_derive(octavo_random_derive(3, i % 100), 5), i / 100);
        assert_true(u >= 0 && u < 1);
        bins[(int)(u * BINS)]++;
    }
    for (int i = 0; i < BINS; i++) assert_true(llabs(bins[i] - COUNT / BINS) < 500); /* six standard deviations */
    assert_true(octavo_random_derive(1, 2) != octavo_random_derive(2, 1) && octavo_random_derive(1, 0) != octavo_random_derive(1, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_characters),         cmocka_unit_test(test_is_utf8),
        cmocka_unit_test(test_stop_over_tokens),   cmocka_unit_test(test_overlapping_stops),
        cmocka_unit_test(test_stops_exhaustively), cmocka_unit_test(test_terminal),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
