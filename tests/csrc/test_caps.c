/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a stream can do: how queries are narrowed, and which OPEN requests are refused and why. */
#include "backend/caps.h"

#include "check.h"

#define BIT(format) (UINT64_C(1) << XENSND_PCM_FORMAT_##format)

/* 8 to 96 kHz, mono to 5.1, four formats, 64 KiB. */
static struct xa_caps usual_caps(void)
{
    return (struct xa_caps){
        .formats = BIT(U8) | BIT(S16_LE) | BIT(S32_LE) | BIT(F64_LE),
        .rates = {48000, 8000, 96000, 44100},
        .rate_count = 4,
        .channels_min = 1,
        .channels_max = 6,
        .buffer_octets_max = 65536,
    };
}

/* What a guest asks that knows nothing yet. */
static struct xensnd_query_hw_param everything(void)
{
    struct xensnd_query_hw_param all = {.formats = UINT64_MAX};

    all.rates.max = all.channels.max = all.buffer.max = all.period.max = UINT32_MAX;
    return all;
}

static int same(const struct xensnd_query_hw_param *a, const struct xensnd_query_hw_param *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

/* Narrows, and checks that the answer is within the question and is its own answer. */
static int narrow(const struct xa_caps *caps, struct xensnd_query_hw_param *ranges)
{
    struct xensnd_query_hw_param asked = *ranges, again;
    int status = xa_caps_narrow(caps, ranges);

    if (status) {
        CHECK(same(ranges, &asked));
        return status;
    }
    CHECK_EQ(ranges->formats & ~asked.formats, 0);
    CHECK(ranges->rates.min >= asked.rates.min && ranges->rates.max <= asked.rates.max);
    CHECK(ranges->channels.min >= asked.channels.min && ranges->channels.max <= asked.channels.max);
    CHECK(ranges->buffer.min >= asked.buffer.min && ranges->buffer.max <= asked.buffer.max);
    CHECK(ranges->period.min >= asked.period.min && ranges->period.max <= asked.period.max);
    again = *ranges;
    CHECK_EQ(xa_caps_narrow(caps, &again), 0);
    CHECK(same(&again, ranges));
    return 0;
}

static void a_first_query_gets_all_that_is_allowed(void)
{
    struct xa_caps caps = usual_caps();
    struct xensnd_query_hw_param r = everything();

    CHECK_EQ(narrow(&caps, &r), 0);
    CHECK_EQ(r.formats, caps.formats);
    CHECK_EQ(r.rates.min, 8000);
    CHECK_EQ(r.rates.max, 96000);
    CHECK_EQ(r.channels.min, 1);
    CHECK_EQ(r.channels.max, 6);
    CHECK_EQ(r.buffer.max, 65536); /* frames of one u8 sample */
    CHECK_EQ(r.period.max, 32768); /* a buffer holds two periods */
    CHECK_EQ(r.period.min, 4);     /* 0.5 ms at 8 kHz */
    CHECK_EQ(r.buffer.min, 8);
}

static void formats_that_are_not_pcm_are_never_offered(void)
{
    struct xa_caps caps = usual_caps();
    struct xensnd_query_hw_param r = everything();

    caps.formats = UINT64_MAX;
    CHECK_EQ(narrow(&caps, &r), 0);
    CHECK_EQ(r.formats, xa_format_all_mask());
}

static void a_range_of_rates_shrinks_to_rates_that_exist(void)
{
    struct xa_caps caps = usual_caps();
    struct xensnd_query_hw_param r = everything();

    r.rates.min = 8001;
    r.rates.max = 95999;
    CHECK_EQ(narrow(&caps, &r), 0);
    CHECK_EQ(r.rates.min, 44100);
    CHECK_EQ(r.rates.max, 48000);
    CHECK_EQ(r.period.min, 23); /* 0.5 ms at 44.1 kHz, rounded up */
}

static void larger_frames_leave_fewer_of_them(void)
{
    struct xa_caps caps = usual_caps();
    struct xensnd_query_hw_param r = everything();

    r.formats = BIT(S16_LE) | BIT(S32_LE);
    r.channels.min = 2;
    CHECK_EQ(narrow(&caps, &r), 0);
    CHECK_EQ(r.buffer.max, 65536 / 4);
    r.formats = BIT(S32_LE);
    CHECK_EQ(narrow(&caps, &r), 0);
    CHECK_EQ(r.buffer.max, 65536 / 8);
    r.channels.min = 6;
    CHECK_EQ(narrow(&caps, &r), 0);
    CHECK_EQ(r.buffer.max, 65536 / 24);
    CHECK_EQ(r.period.max, 65536 / 24 / 2);
}

static void a_period_is_at_most_half_of_the_buffer(void)
{
    struct xa_caps caps = usual_caps();
    struct xensnd_query_hw_param r = everything();

    r.buffer.max = 1000;
    CHECK_EQ(narrow(&caps, &r), 0);
    CHECK_EQ(r.period.max, 500);
    r = everything();
    r.period.min = 300;
    CHECK_EQ(narrow(&caps, &r), 0);
    CHECK_EQ(r.buffer.min, 600);
}

static void a_buffer_that_suits_the_route_is_told_but_not_enforced(void)
{
    struct xa_caps caps = usual_caps();
    struct xensnd_query_hw_param r = everything();

    caps.buffer_us_suited = 8000;
    r.rates.min = r.rates.max = 48000;
    CHECK_EQ(narrow(&caps, &r), 0);
    CHECK_EQ(r.buffer.min, 384);
    r = everything();
    r.rates.min = r.rates.max = 48000;
    r.buffer.max = 100;
    CHECK_EQ(narrow(&caps, &r), 0);
    CHECK_EQ(r.buffer.min, 100);
}

static void impossible_queries_are_refused_unchanged(void)
{
    struct xa_caps caps = usual_caps();
    struct xensnd_query_hw_param all = everything(), r;

#define REFUSED(change)                                                                            \
    do {                                                                                           \
        r = all;                                                                                   \
        change;                                                                                    \
        CHECK_EQ(narrow(&caps, &r), -XEN_EINVAL);                                                  \
    } while (0)
    REFUSED(r.formats = 0);
    REFUSED(r.formats = BIT(S24_LE));
    REFUSED(r.formats = BIT(GSM));
    REFUSED((r.rates.min = 44101, r.rates.max = 47999));
    REFUSED((r.rates.min = 48000, r.rates.max = 44100));
    REFUSED(r.rates.min = 96001);
    REFUSED(r.rates.max = 7999);
    REFUSED(r.channels.min = 7);
    REFUSED(r.channels.max = 0);
    REFUSED((r.channels.min = 3, r.channels.max = 2));
    REFUSED(r.buffer.min = 65537);
    REFUSED(r.buffer.max = 7); /* not two periods of 0.5 ms */
    REFUSED(r.period.min = 32769);
    REFUSED(r.period.max = 3);
    REFUSED(r.period.min = UINT32_MAX); /* twice that does not fit into 32 bits */
    REFUSED((r.buffer.min = 2000, r.buffer.max = 1999));
    REFUSED(memset(&r, 0, sizeof(r)));
#undef REFUSED
}

static void nothing_configured_allows_nothing(void)
{
    struct xa_caps caps = usual_caps();
    struct xensnd_query_hw_param r = everything();

    caps.rate_count = 0;
    CHECK_EQ(narrow(&caps, &r), -XEN_EINVAL);
    caps = usual_caps();
    caps.channels_min = caps.channels_max = 0;
    CHECK_EQ(narrow(&caps, &r), -XEN_EINVAL);
    caps = usual_caps();
    caps.buffer_octets_max = 0;
    CHECK_EQ(narrow(&caps, &r), -XEN_EINVAL);
}

static void no_channels_are_never_allowed(void)
{
    struct xa_caps caps = usual_caps();
    struct xensnd_query_hw_param r = everything();

    caps.channels_min = 0;
    CHECK_EQ(narrow(&caps, &r), 0);
    CHECK_EQ(r.channels.min, 1);
}

/* ALSA fixes one parameter after another to the least or the most of what is left, and asks after
 * each. Whatever it picks, a point is left at the end, and OPEN takes it. */
static void narrowing_step_by_step_ends_at_a_point_that_opens(void)
{
    struct xa_caps caps = usual_caps();

    for (unsigned choices = 0; choices < 64; choices++) {
        struct xensnd_query_hw_param r = everything();
        struct xensnd_open_req open = {.gref_directory = 1};
        struct xa_pcm_params params;
        const char *why;
        uint32_t value, frame, code;

        CHECK_EQ(narrow(&caps, &r), 0);
        for (code = 0; !(r.formats >> code & 1); code++)
            ;
        for (uint32_t c = code; choices & 1 && c < 64; c++)
            code = r.formats >> c & 1 ? c : code;
        r.formats = UINT64_C(1) << code;
        CHECK_EQ(narrow(&caps, &r), 0);
        r.channels.min = r.channels.max = choices & 2 ? r.channels.max : r.channels.min;
        CHECK_EQ(narrow(&caps, &r), 0);
        r.rates.min = r.rates.max = choices & 4 ? r.rates.max : r.rates.min;
        CHECK_EQ(narrow(&caps, &r), 0);
        if (choices & 8) {
            r.period.min = r.period.max = choices & 16 ? r.period.max : r.period.min;
            CHECK_EQ(narrow(&caps, &r), 0);
            r.buffer.min = r.buffer.max = choices & 32 ? r.buffer.max : r.buffer.min;
        } else {
            r.buffer.min = r.buffer.max = choices & 32 ? r.buffer.max : r.buffer.min;
            CHECK_EQ(narrow(&caps, &r), 0);
            r.period.min = r.period.max = choices & 16 ? r.period.max : r.period.min;
        }
        CHECK_EQ(narrow(&caps, &r), 0);

        frame = xa_format_frame_octets(xa_format_by_code(code), r.channels.min);
        open.pcm_format = (uint8_t) code;
        open.pcm_rate = r.rates.min;
        open.pcm_channels = (uint8_t) r.channels.min;
        open.buffer_sz = r.buffer.min * frame;
        open.period_sz = r.period.min * frame;
        CHECK_EQ(xa_caps_check_open(&caps, &open, &params, &why, &value), 0);
        CHECK(params.format == xa_format_by_code(code));
        CHECK_EQ(params.rate, open.pcm_rate);
        CHECK_EQ(params.channels, open.pcm_channels);
        CHECK_EQ(params.frame_octets, frame);
        CHECK_EQ(params.buffer_octets, open.buffer_sz);
        CHECK_EQ(params.period_octets, open.period_sz);
    }
}

static const struct xensnd_open_req good_open = {
    .pcm_rate = 48000,
    .pcm_format = XENSND_PCM_FORMAT_S16_LE,
    .pcm_channels = 2,
    .buffer_sz = 7680,
    .gref_directory = 8,
    .period_sz = 1920,
};

static void refused(const struct xa_caps *caps, const struct xensnd_open_req *open, int status,
                    const char *words, uint32_t number)
{
    struct xa_pcm_params params = {.rate = 1};
    const char *why = "";
    uint32_t value = 0;

    CHECK_EQ(xa_caps_check_open(caps, open, &params, &why, &value), status);
    CHECK_EQ(strcmp(why, words), 0);
    CHECK_EQ(value, number);
    CHECK_EQ(params.rate, 1);
}

static void an_open_outside_of_the_configuration_is_refused_with_its_reason(void)
{
    struct xa_caps caps = usual_caps();
    struct xensnd_open_req open;

#define REFUSED(field, number, status, words)                                                      \
    do {                                                                                           \
        open = good_open;                                                                          \
        open.field = number;                                                                       \
        refused(&caps, &open, status, words, number);                                              \
    } while (0)
    REFUSED(pcm_format, XENSND_PCM_FORMAT_MPEG, -XEN_EOPNOTSUPP,
            "a compressed format, which is not PCM");
    REFUSED(pcm_format, 25, -XEN_EINVAL, "an unknown sample format");
    REFUSED(pcm_format, 255, -XEN_EINVAL, "an unknown sample format");
    REFUSED(pcm_format, XENSND_PCM_FORMAT_S24_LE, -XEN_EINVAL,
            "a sample format that the card's configuration does not allow");
    REFUSED(pcm_rate, 0, -XEN_EINVAL, "a rate that the card's configuration does not allow");
    REFUSED(pcm_rate, 47999, -XEN_EINVAL, "a rate that the card's configuration does not allow");
    REFUSED(pcm_channels, 0, -XEN_EINVAL,
            "a number of channels that the card's configuration does not allow");
    REFUSED(pcm_channels, 7, -XEN_EINVAL,
            "a number of channels that the card's configuration does not allow");
    REFUSED(buffer_sz, 65540, -XEN_EINVAL, "a larger buffer than allowed");
    REFUSED(buffer_sz, UINT32_MAX, -XEN_EINVAL, "a larger buffer than allowed");
    REFUSED(buffer_sz, 0, -XEN_EINVAL, "a buffer that is not of whole frames");
    REFUSED(buffer_sz, 3, -XEN_EINVAL, "a buffer that is not of whole frames");
    REFUSED(buffer_sz, 7682, -XEN_EINVAL, "a buffer that is not of whole frames");
    REFUSED(period_sz, 1922, -XEN_EINVAL,
            "a period that is not of whole frames or exceeds the buffer");
    REFUSED(period_sz, 7684, -XEN_EINVAL,
            "a period that is not of whole frames or exceeds the buffer");
    REFUSED(period_sz, 92, -XEN_EINVAL, "a period shorter than 0.5 ms");
    REFUSED(gref_directory, 0, -XEN_EINVAL, "no page directory");
#undef REFUSED
}

static void an_open_at_the_limits_is_taken(void)
{
    struct xa_caps caps = usual_caps();
    struct xensnd_open_req open = good_open;
    struct xa_pcm_params params;
    const char *why;
    uint32_t value;

    open.period_sz = 96; /* 0.5 ms */
    open.buffer_sz = 65536;
    CHECK_EQ(xa_caps_check_open(&caps, &open, &params, &why, &value), 0);
    open.period_sz = open.buffer_sz;
    CHECK_EQ(xa_caps_check_open(&caps, &open, &params, &why, &value), 0);
    open.period_sz = 0; /* no events */
    CHECK_EQ(xa_caps_check_open(&caps, &open, &params, &why, &value), 0);
    CHECK_EQ(params.period_octets, 0);
}

/* A configuration that says 0 channels, or 4 GiB, makes no division by 0 and no overflow. */
static void a_careless_configuration_makes_no_dangerous_pcm(void)
{
    struct xa_caps caps = usual_caps();
    struct xensnd_open_req open = good_open;

    caps.channels_min = 0;
    open.pcm_channels = 0;
    refused(&caps, &open, -XEN_EINVAL,
            "a number of channels that the card's configuration does not allow", 0);
    caps.buffer_octets_max = UINT32_MAX;
    open = good_open;
    open.buffer_sz = XA_BUFFER_MOST + 4;
    refused(&caps, &open, -XEN_EINVAL, "a larger buffer than allowed", open.buffer_sz);
}

int main(void)
{
    a_first_query_gets_all_that_is_allowed();
    formats_that_are_not_pcm_are_never_offered();
    a_range_of_rates_shrinks_to_rates_that_exist();
    larger_frames_leave_fewer_of_them();
    a_period_is_at_most_half_of_the_buffer();
    a_buffer_that_suits_the_route_is_told_but_not_enforced();
    impossible_queries_are_refused_unchanged();
    nothing_configured_allows_nothing();
    no_channels_are_never_allowed();
    narrowing_step_by_step_ends_at_a_point_that_opens();
    an_open_outside_of_the_configuration_is_refused_with_its_reason();
    an_open_at_the_limits_is_taken();
    a_careless_configuration_makes_no_dangerous_pcm();
    return check_result();
}
