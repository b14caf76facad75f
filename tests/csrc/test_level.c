/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Peak levels: every format that has one, at full scale, silence and wherever the samples lie. */
#include "backend/level.h"

#include <math.h>
#include <string.h>

#include "check.h"

#define MOST 16

static const uint8_t with_level[] = {
    XENSND_PCM_FORMAT_U8,     XENSND_PCM_FORMAT_S16_LE, XENSND_PCM_FORMAT_S24_LE,
    XENSND_PCM_FORMAT_S32_LE, XENSND_PCM_FORMAT_F32_LE,
};

static float peak_at(unsigned code, const void *samples, uint32_t octets, unsigned shift)
{
    const struct xa_format *format = xa_format_by_code(code);
    _Alignas(8) uint8_t place[8 * MOST + 8];

    memcpy(place + shift, samples, octets);
    return xa_level_peak(format, place + shift, octets / format->sample_octets);
}

/* At each alignment that a sample can have. */
static void check_peak(int line, unsigned code, const void *samples, uint32_t octets, float peak)
{
    for (unsigned shift = 0; shift < 8; shift++) {
        float got = peak_at(code, samples, octets, shift);

        if (got != peak)
            fprintf(stderr, "line %d, shift %u: %g, expected %g\n", line, shift, (double) got,
                    (double) peak);
        CHECK(got == peak);
    }
}

#define CHECK_PEAK(code, samples, peak) check_peak(__LINE__, code, samples, sizeof(samples), peak)

static void whole_numbers_are_measured_against_full_scale(void)
{
    const uint8_t u8[] = {128, 160, 120};
    const int16_t s16[] = {0, -8192, 4096};
    const int32_t s24[] = {0, 0x200000, -0x100000};
    const int32_t s32[] = {0, -0x20000000, 0x10000000};

    CHECK_PEAK(XENSND_PCM_FORMAT_U8, u8, 0.25f);
    CHECK_PEAK(XENSND_PCM_FORMAT_S16_LE, s16, 0.25f);
    CHECK_PEAK(XENSND_PCM_FORMAT_S24_LE, s24, 0.25f);
    CHECK_PEAK(XENSND_PCM_FORMAT_S32_LE, s32, 0.25f);
}

static void the_lowest_value_is_full_scale(void)
{
    const uint8_t u8[] = {0};
    const int16_t s16[] = {INT16_MIN};
    const int32_t s24[] = {-0x800000};
    const int32_t s32[] = {INT32_MIN};

    CHECK_PEAK(XENSND_PCM_FORMAT_U8, u8, 1.0f);
    CHECK_PEAK(XENSND_PCM_FORMAT_S16_LE, s16, 1.0f);
    CHECK_PEAK(XENSND_PCM_FORMAT_S24_LE, s24, 1.0f);
    CHECK_PEAK(XENSND_PCM_FORMAT_S32_LE, s32, 1.0f);
}

static void the_highest_value_is_just_below(void)
{
    const uint8_t u8[] = {255};
    const int16_t s16[] = {INT16_MAX};
    const int32_t s24[] = {0x7fffff};

    CHECK_PEAK(XENSND_PCM_FORMAT_U8, u8, 127.0f / 128.0f);
    CHECK_PEAK(XENSND_PCM_FORMAT_S16_LE, s16, 32767.0f / 32768.0f);
    CHECK_PEAK(XENSND_PCM_FORMAT_S24_LE, s24, 8388607.0f / 8388608.0f);
}

/* What a guest puts into the fourth octet means nothing. */
static void the_octet_above_24_bits_does_not_count(void)
{
    const int32_t silent[] = {0x7f000000, INT32_MIN};
    const int32_t quarter[] = {0x7f200000};

    CHECK_PEAK(XENSND_PCM_FORMAT_S24_LE, silent, 0.0f);
    CHECK_PEAK(XENSND_PCM_FORMAT_S24_LE, quarter, 0.25f);
}

static void silence_is_0(void)
{
    for (size_t i = 0; i < sizeof(with_level); i++) {
        const struct xa_format *format = xa_format_by_code(with_level[i]);
        uint8_t silence[4 * MOST];

        xa_format_silence(format, silence, sizeof(silence));
        CHECK_PEAK(with_level[i], silence, 0.0f);
    }
}

static void no_samples_are_silence(void)
{
    for (size_t i = 0; i < sizeof(with_level); i++)
        CHECK(xa_level_peak(xa_format_by_code(with_level[i]), "", 0) == 0.0f);
}

static void the_peak_is_found_wherever_it_is(void)
{
    for (size_t at = 0; at < MOST; at++) {
        int16_t samples[MOST] = {0};

        samples[at] = -16384;
        CHECK_PEAK(XENSND_PCM_FORMAT_S16_LE, samples, 0.5f);
    }
}

static void floats_are_limited_to_full_scale(void)
{
    const float within[] = {0.125f, -0.75f, 0.5f};
    const float beyond[] = {-4.0f, 0.5f};
    const float endless[] = {0.5f, -INFINITY};

    CHECK_PEAK(XENSND_PCM_FORMAT_F32_LE, within, 0.75f);
    CHECK_PEAK(XENSND_PCM_FORMAT_F32_LE, beyond, 1.0f);
    CHECK_PEAK(XENSND_PCM_FORMAT_F32_LE, endless, 1.0f);
}

static void what_is_no_number_does_not_count(void)
{
    const float first[] = {NAN, 0.5f}, last[] = {0.5f, -NAN}, between[] = {0.25f, NAN, 0.5f};
    const float alone[] = {NAN};

    CHECK_PEAK(XENSND_PCM_FORMAT_F32_LE, first, 0.5f);
    CHECK_PEAK(XENSND_PCM_FORMAT_F32_LE, last, 0.5f);
    CHECK_PEAK(XENSND_PCM_FORMAT_F32_LE, between, 0.5f);
    CHECK_PEAK(XENSND_PCM_FORMAT_F32_LE, alone, 0.0f);
}

static void other_formats_give_0(void)
{
    uint8_t loud[8 * MOST];
    unsigned others = 0;

    memset(loud, 0x41, sizeof(loud));
    for (unsigned code = 0; code < 256; code++) {
        if (!xa_format_by_code(code) || memchr(with_level, (int) code, sizeof(with_level)))
            continue;
        others++;
        CHECK_PEAK(code, loud, 0.0f);
    }
    CHECK(others > 10);
}

int main(void)
{
    whole_numbers_are_measured_against_full_scale();
    the_lowest_value_is_full_scale();
    the_highest_value_is_just_below();
    the_octet_above_24_bits_does_not_count();
    silence_is_0();
    no_samples_are_silence();
    the_peak_is_found_wherever_it_is();
    floats_are_limited_to_full_scale();
    what_is_no_number_does_not_count();
    other_formats_give_0();
    return check_result();
}
