/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The PCM formats: every code with its names, sizes, byte order and silence.
 */
#include "check.h"
#include "sndif/format.h"

/* What each format is, by its code: sndif.h's and xl's names; a sample of silence, octet by octet.
 */
static const struct {
    const char *name;
    const char *xl;
    enum xa_sample_type type;
    unsigned octets;
    unsigned bits;
    bool big_endian;
    uint8_t silence[8];
} expected[] = {
    {"s8", NULL, XA_SAMPLE_SIGNED, 1, 8, false, {0}},
    {"u8", NULL, XA_SAMPLE_UNSIGNED, 1, 8, false, {0x80}},
    {"s16_le", NULL, XA_SAMPLE_SIGNED, 2, 16, false, {0}},
    {"s16_be", NULL, XA_SAMPLE_SIGNED, 2, 16, true, {0}},
    {"u16_le", NULL, XA_SAMPLE_UNSIGNED, 2, 16, false, {0, 0x80}},
    {"u16_be", NULL, XA_SAMPLE_UNSIGNED, 2, 16, true, {0x80, 0}},
    {"s24_le", NULL, XA_SAMPLE_SIGNED, 4, 24, false, {0}},
    {"s24_be", NULL, XA_SAMPLE_SIGNED, 4, 24, true, {0}},
    {"u24_le", NULL, XA_SAMPLE_UNSIGNED, 4, 24, false, {0, 0, 0x80, 0}},
    {"u24_be", NULL, XA_SAMPLE_UNSIGNED, 4, 24, true, {0, 0x80, 0, 0}},
    {"s32_le", NULL, XA_SAMPLE_SIGNED, 4, 32, false, {0}},
    {"s32_be", NULL, XA_SAMPLE_SIGNED, 4, 32, true, {0}},
    {"u32_le", NULL, XA_SAMPLE_UNSIGNED, 4, 32, false, {0, 0, 0, 0x80}},
    {"u32_be", NULL, XA_SAMPLE_UNSIGNED, 4, 32, true, {0x80, 0, 0, 0}},
    {"float_le", "f32_le", XA_SAMPLE_FLOAT, 4, 32, false, {0}},
    {"float_be", "f32_be", XA_SAMPLE_FLOAT, 4, 32, true, {0}},
    {"float64_le", "f64_le", XA_SAMPLE_FLOAT, 8, 64, false, {0}},
    {"float64_be", "f64_be", XA_SAMPLE_FLOAT, 8, 64, true, {0}},
    {"iec958_subframe_le", NULL, XA_SAMPLE_IEC958, 4, 32, false, {0}},
    {"iec958_subframe_be", NULL, XA_SAMPLE_IEC958, 4, 32, true, {0}},
    {"mu_law", NULL, XA_SAMPLE_MU_LAW, 1, 8, false, {0xff}},
    {"a_law", NULL, XA_SAMPLE_A_LAW, 1, 8, false, {0xd5}},
};

#define FORMATS (sizeof(expected) / sizeof(expected[0]))

static const struct xa_format *by_name(const char *name)
{
    return xa_format_by_name(name, strlen(name));
}

static void each_code_is_the_format_of_the_header(void)
{
    for (unsigned code = 0; code < FORMATS; code++) {
        const struct xa_format *format = xa_format_by_code(code);

        CHECK(format != NULL);
        if (format == NULL)
            continue;
        CHECK_EQ(format->code, code);
        CHECK(strcmp(format->name, expected[code].name) == 0);
        CHECK_EQ(format->type, expected[code].type);
        CHECK_EQ(format->sample_octets, expected[code].octets);
        CHECK_EQ(format->sample_bits, expected[code].bits);
        CHECK_EQ(format->big_endian, expected[code].big_endian);
    }
}

static void both_spellings_are_one_format(void)
{
    for (unsigned code = 0; code < FORMATS; code++) {
        CHECK(by_name(expected[code].name) == xa_format_by_code(code));
        if (expected[code].xl != NULL)
            CHECK(by_name(expected[code].xl) == xa_format_by_code(code));
        else
            CHECK(xa_format_by_code(code)->libxl_name == NULL);
    }
}

static void other_names_are_no_format(void)
{
    CHECK(by_name("") == NULL);
    CHECK(by_name("s16") == NULL);
    CHECK(by_name("s16_le ") == NULL);
    CHECK(by_name("S16_LE") == NULL);
    CHECK(by_name("s24_3le") == NULL);
    CHECK(by_name("float32_le") == NULL);
    CHECK(xa_format_by_name("s16_lesson", 6) == xa_format_by_code(XENSND_PCM_FORMAT_S16_LE));
    CHECK(xa_format_by_name("s16_le\0", 7) == NULL);
}

static void compressed_formats_are_known_but_are_not_pcm(void)
{
    static const char *const names[] = {"ima_adpcm", "mpeg", "gsm"};

    for (unsigned i = 0; i < 3; i++) {
        CHECK(xa_format_is_compressed(XENSND_PCM_FORMAT_IMA_ADPCM + i));
        CHECK(xa_format_by_code(XENSND_PCM_FORMAT_IMA_ADPCM + i) == NULL);
        CHECK(by_name(names[i]) == NULL);
    }
    for (unsigned code = 0; code < FORMATS; code++)
        CHECK(!xa_format_is_compressed(code));
}

static void unknown_codes_are_no_format(void)
{
    for (unsigned code = XENSND_PCM_FORMAT_GSM + 1; code < 256; code++) {
        CHECK(xa_format_by_code(code) == NULL);
        CHECK(!xa_format_is_compressed(code));
    }
    CHECK(xa_format_by_code(UINT32_MAX) == NULL);
}

static void the_mask_has_a_bit_for_each_pcm_format(void)
{
    CHECK_EQ(xa_format_all_mask(), 0x3fffff);
    for (unsigned code = 0; code < 64; code++)
        CHECK_EQ(xa_format_all_mask() >> code & 1, xa_format_by_code(code) != NULL);
}

static void a_frame_is_one_sample_for_each_channel(void)
{
    CHECK_EQ(xa_format_frame_octets(by_name("u8"), 1), 1);
    CHECK_EQ(xa_format_frame_octets(by_name("s16_le"), 2), 4);
    CHECK_EQ(xa_format_frame_octets(by_name("s24_le"), 6), 24);
    CHECK_EQ(xa_format_frame_octets(by_name("float64_le"), 255), 2040);
}

static void silence_is_the_middle_of_the_range_and_stays_in_bounds(void)
{
    for (unsigned code = 0; code < FORMATS; code++) {
        for (unsigned samples = 0; samples <= 3; samples++) {
            unsigned octets = samples * expected[code].octets;
            uint8_t buffer[32];

            memset(buffer, 0xa5, sizeof(buffer));
            xa_format_silence(xa_format_by_code(code), buffer, octets);
            for (unsigned i = 0; i < octets; i++)
                CHECK_EQ(buffer[i], expected[code].silence[i % expected[code].octets]);
            CHECK_EQ(buffer[octets], 0xa5);
        }
    }
}

int main(void)
{
    each_code_is_the_format_of_the_header();
    both_spellings_are_one_format();
    other_names_are_no_format();
    compressed_formats_are_known_but_are_not_pcm();
    unknown_codes_are_no_format();
    the_mask_has_a_bit_for_each_pcm_format();
    a_frame_is_one_sample_for_each_channel();
    silence_is_the_middle_of_the_range_and_stays_in_bounds();
    return check_result();
}
