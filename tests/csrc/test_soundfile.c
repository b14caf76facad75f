/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sound files in the wire's formats, and the file and null outputs and inputs made of them. */
#include "soundfile/soundfile.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sndfile.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "backend/endpoint.h"
#include "check.h"

enum { FRAMES = 5000, CHANNELS_MOST = 6, OCTETS_MOST = FRAMES * CHANNELS_MOST * 8 };

static char dir[] = "/tmp/xa-soundfile-XXXXXX";
static uint8_t samples[OCTETS_MOST], back[OCTETS_MOST + 4096];

static const char *path_of(const char *name)
{
    static char path[sizeof(dir) + 64];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static struct xa_route file_route(const char *name)
{
    struct xa_route route = {.kind = XA_ROUTE_FILE};

    snprintf(route.path, sizeof(route.path), "%s", path_of(name));
    return route;
}

static struct xa_pcm_params params_of(unsigned code, uint32_t rate, uint32_t channels)
{
    const struct xa_format *format = xa_format_by_code(code);

    return (struct xa_pcm_params){.format = format,
                                  .rate = rate,
                                  .channels = channels,
                                  .frame_octets = xa_format_frame_octets(format, channels)};
}

static uint32_t random_word(void)
{
    static uint64_t state = 88172645463325252u;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t) (state >> 16);
}

/* Any bits, but those of 24-bit samples in four octets, whose topmost octet says nothing: there it
 * is the sign (S24) or 0 (U24). */
static void fill_random(const struct xa_format *format, uint8_t *to, uint32_t octets)
{
    for (uint32_t i = 0; i < octets; i++)
        to[i] = (uint8_t) random_word();
    if (format->sample_bits != 24)
        return;
    for (uint32_t i = 0; i < octets; i += 4) {
        uint8_t *top = to + i + (format->big_endian ? 0 : 3);
        uint8_t next = to[i + (format->big_endian ? 1 : 2)];

        *top = format->type == XA_SAMPLE_SIGNED && next & 0x80 ? 0xff : 0;
    }
}

static void every_pcm_format_comes_back_bit_for_bit(void)
{
    static const uint32_t channels[] = {1, 2, 6};

    for (unsigned code = 0; code <= XENSND_PCM_FORMAT_A_LAW; code++) {
        const struct xa_format *format = xa_format_by_code(code);

        for (unsigned c = 0; c < 3; c++) {
            uint32_t frame = xa_format_frame_octets(format, channels[c]);
            const char *path = path_of("back.wav");
            struct xa_soundfile_info info;
            struct xa_soundfile *file;
            int error = xa_soundfile_create(path, false, format, 44100, channels[c], &file);

            CHECK_EQ(xa_soundfile_holds(format), format->type != XA_SAMPLE_IEC958);
            if (format->type == XA_SAMPLE_IEC958) {
                CHECK_EQ(error, -ENOTSUP);
                continue;
            }
            CHECK_EQ(error, 0);
            if (error)
                continue;
            fill_random(format, samples, FRAMES * frame);
            CHECK_EQ(xa_soundfile_write(file, samples, 1), 1);
            CHECK_EQ(xa_soundfile_write(file, samples + frame, FRAMES - 1), FRAMES - 1);
            CHECK_EQ(xa_soundfile_write(file, samples, 0), 0);
            CHECK_EQ(xa_soundfile_close(file), 0);

            error = xa_soundfile_open(path, format, &info, &file);
            CHECK_EQ(error, 0);
            if (error)
                continue;
            CHECK_EQ(info.rate, 44100);
            CHECK_EQ(info.channels, channels[c]);
            CHECK_EQ(info.frames, FRAMES);
            CHECK(xa_soundfile_reads_as(&info, format));
            memset(back, 0xee, sizeof(back));
            CHECK_EQ(xa_soundfile_read(file, back, 17), 17);
            CHECK_EQ(xa_soundfile_read(file, back + 17 * frame, FRAMES), FRAMES - 17);
            CHECK_EQ(memcmp(samples, back, FRAMES * frame), 0);
            CHECK_EQ(back[FRAMES * frame], 0xee);
            CHECK_EQ(xa_soundfile_read(file, back, 1), 0);
            xa_soundfile_rewind(file);
            memset(back, 0, sizeof(back));
            CHECK_EQ(xa_soundfile_read(file, back, FRAMES), FRAMES);
            CHECK_EQ(memcmp(samples, back, FRAMES * frame), 0);
            CHECK_EQ(xa_soundfile_close(file), 0);
        }
    }
}

static void flac_holds_whole_numbers_up_to_24_bits(void)
{
    static const unsigned held[] = {XENSND_PCM_FORMAT_S8, XENSND_PCM_FORMAT_U8,
                                    XENSND_PCM_FORMAT_S16_LE, XENSND_PCM_FORMAT_U16_BE,
                                    XENSND_PCM_FORMAT_S24_LE};
    struct xa_soundfile *file;

    for (unsigned i = 0; i < sizeof(held) / sizeof(held[0]); i++) {
        const struct xa_format *format = xa_format_by_code(held[i]);
        uint32_t frame = xa_format_frame_octets(format, 2);
        struct xa_soundfile_info info;

        fill_random(format, samples, FRAMES * frame);
        CHECK_EQ(xa_soundfile_create(path_of("f.flac"), false, format, 48000, 2, &file), 0);
        CHECK_EQ(xa_soundfile_write(file, samples, FRAMES), FRAMES);
        CHECK_EQ(xa_soundfile_close(file), 0);
        CHECK_EQ(xa_soundfile_open(path_of("f.flac"), format, &info, &file), 0);
        CHECK_EQ(xa_soundfile_read(file, back, FRAMES), FRAMES);
        CHECK_EQ(memcmp(samples, back, FRAMES * frame), 0);
        CHECK_EQ(xa_soundfile_close(file), 0);
    }
    CHECK_EQ(xa_soundfile_create(path_of("g.flac"), false,
                                 xa_format_by_code(XENSND_PCM_FORMAT_S32_LE), 48000, 2, &file),
             -ENOTSUP);
    CHECK(access(path_of("g.flac"), F_OK) != 0); /* nothing was made */
}

static void make_wav(const char *name, unsigned code, uint32_t rate, uint32_t channels,
                     const void *frames, uint32_t count)
{
    struct xa_soundfile *file;

    CHECK_EQ(
        xa_soundfile_create(path_of(name), false, xa_format_by_code(code), rate, channels, &file),
        0);
    CHECK_EQ(xa_soundfile_write(file, frames, count), count);
    CHECK_EQ(xa_soundfile_close(file), 0);
}

static uint32_t read_as(const char *name, unsigned code, void *to, uint32_t frames)
{
    struct xa_soundfile_info info;
    struct xa_soundfile *file;
    uint32_t got;

    if (xa_soundfile_open(path_of(name), xa_format_by_code(code), &info, &file) < 0)
        return UINT32_MAX;
    got = xa_soundfile_read(file, to, frames);
    CHECK_EQ(xa_soundfile_close(file), 0);
    return got;
}

static void a_file_of_16_bits_widens_exactly(void)
{
    static const int16_t narrow[] = {0, 1, -1, 12345, -12345, 32767, -32768};
    enum { COUNT = sizeof(narrow) / sizeof(narrow[0]) };
    int32_t s24[COUNT] = {0}, s32[COUNT] = {0};
    uint16_t u16[COUNT] = {0};
    float single[COUNT] = {0};
    double wide[COUNT] = {0};
    uint8_t big[2 * COUNT] = {0};

    make_wav("w.wav", XENSND_PCM_FORMAT_S16_LE, 48000, 1, narrow, COUNT);
    CHECK_EQ(read_as("w.wav", XENSND_PCM_FORMAT_S24_LE, s24, COUNT), COUNT);
    CHECK_EQ(read_as("w.wav", XENSND_PCM_FORMAT_S32_LE, s32, COUNT), COUNT);
    CHECK_EQ(read_as("w.wav", XENSND_PCM_FORMAT_U16_LE, u16, COUNT), COUNT);
    CHECK_EQ(read_as("w.wav", XENSND_PCM_FORMAT_S16_BE, big, COUNT), COUNT);
    CHECK_EQ(read_as("w.wav", XENSND_PCM_FORMAT_F32_LE, single, COUNT), COUNT);
    CHECK_EQ(read_as("w.wav", XENSND_PCM_FORMAT_F64_LE, wide, COUNT), COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        CHECK_EQ(s24[i], narrow[i] * 256);
        CHECK_EQ(s32[i], (int64_t) narrow[i] * 65536);
        CHECK_EQ(u16[i], narrow[i] + 32768);
        CHECK_EQ((int16_t) (big[2 * i] << 8 | big[2 * i + 1]), narrow[i]);
        CHECK((double) single[i] == narrow[i] / 32768.0);
        CHECK(wide[i] == narrow[i] / 32768.0);
    }
}

static void what_would_lose_bits_is_refused(void)
{
    static const struct {
        unsigned file, as;
        bool allowed;
    } cases[] = {
        {XENSND_PCM_FORMAT_S16_LE, XENSND_PCM_FORMAT_U8, false},
        {XENSND_PCM_FORMAT_U8, XENSND_PCM_FORMAT_S8, true},
        {XENSND_PCM_FORMAT_S24_LE, XENSND_PCM_FORMAT_F32_LE, true},
        {XENSND_PCM_FORMAT_S32_LE, XENSND_PCM_FORMAT_F32_LE, false},
        {XENSND_PCM_FORMAT_S32_LE, XENSND_PCM_FORMAT_F64_LE, true},
        {XENSND_PCM_FORMAT_F32_LE, XENSND_PCM_FORMAT_F64_BE, true},
        {XENSND_PCM_FORMAT_F64_LE, XENSND_PCM_FORMAT_F32_LE, false},
        {XENSND_PCM_FORMAT_F32_LE, XENSND_PCM_FORMAT_S32_LE, false},
        {XENSND_PCM_FORMAT_MU_LAW, XENSND_PCM_FORMAT_A_LAW, false},
        {XENSND_PCM_FORMAT_MU_LAW, XENSND_PCM_FORMAT_S16_LE, false},
        {XENSND_PCM_FORMAT_S16_LE, XENSND_PCM_FORMAT_IEC958_SUBFRAME_LE, false},
    };
    struct xa_soundfile_info info;

    memset(samples, 0, 8);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        make_wav("l.wav", cases[i].file, 48000, 1, samples, 1);
        CHECK_EQ(xa_soundfile_probe(path_of("l.wav"), &info), 0);
        CHECK_EQ(xa_soundfile_reads_as(&info, xa_format_by_code(cases[i].as)), cases[i].allowed);
        CHECK_EQ(read_as("l.wav", cases[i].as, back, 1), cases[i].allowed ? 1 : UINT32_MAX);
    }
    CHECK(!xa_soundfile_reads_as(&info, NULL));
    CHECK(!xa_soundfile_holds(NULL));
}

static void exclusive_creation_overwrites_nothing(void)
{
    const struct xa_format *format = xa_format_by_code(XENSND_PCM_FORMAT_S16_LE);
    struct xa_soundfile *file;
    struct xa_soundfile_info info;

    make_wav("x.wav", XENSND_PCM_FORMAT_S16_LE, 8000, 1, samples, 100);
    CHECK_EQ(xa_soundfile_create(path_of("x.wav"), true, format, 8000, 1, &file), -EEXIST);
    CHECK_EQ(xa_soundfile_probe(path_of("x.wav"), &info), 0);
    CHECK_EQ(info.frames, 100);
    make_wav("x.wav", XENSND_PCM_FORMAT_S16_LE, 8000, 1, samples, 7);
    CHECK_EQ(xa_soundfile_probe(path_of("x.wav"), &info), 0);
    CHECK_EQ(info.frames, 7);
    CHECK_EQ(xa_soundfile_create(path_of("no/x.wav"), true, format, 8000, 1, &file), -ENOENT);
}

static void what_is_written_is_readable_after_sync(void)
{
    const struct xa_format *format = xa_format_by_code(XENSND_PCM_FORMAT_S16_LE);
    struct xa_soundfile *file;
    struct xa_soundfile_info info;

    CHECK_EQ(xa_soundfile_create(path_of("s.wav"), false, format, 8000, 1, &file), 0);
    CHECK_EQ(xa_soundfile_write(file, samples, 1234), 1234);
    xa_soundfile_sync(file);
    CHECK_EQ(xa_soundfile_probe(path_of("s.wav"), &info), 0);
    CHECK_EQ(info.frames, 1234);
    CHECK_EQ(xa_soundfile_close(file), 0);
}

/* Files wake nobody. */
static const struct xa_endpoint_wakes wakes = {.engine = -1, .control = -1};

/* A limit on the size of files has the same effect. */
static void a_full_disk_is_told(void)
{
    const struct xa_format *format = xa_format_by_code(XENSND_PCM_FORMAT_S16_LE);
    struct rlimit before, little = {.rlim_cur = 20000};
    struct xa_soundfile *file;
    struct xa_route route = file_route("full-2.wav");
    struct xa_pcm_params params = params_of(XENSND_PCM_FORMAT_S16_LE, 8000, 1);
    struct xa_output *o;

    getrlimit(RLIMIT_FSIZE, &before);
    little.rlim_max = before.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &little), 0);
    CHECK_EQ(xa_soundfile_create(path_of("full.wav"), false, format, 8000, 1, &file), 0);
    CHECK_EQ(xa_soundfile_write(file, samples, 4000), 4000);
    CHECK(xa_soundfile_write(file, samples, 20000) < 20000);
    CHECK_EQ(xa_soundfile_close(file), -EIO);

    CHECK_EQ(xa_output_open(&route, &params, &wakes, &o), 0);
    o->ops->start(o, 0);
    o->ops->write(o, samples, 20000);
    for (unsigned i = 0; i < 5000 && o->ops->lost(o) == 0; i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    CHECK(o->ops->lost(o) > 10000 && o->ops->lost(o) <= 20000);
    o->ops->close(o);
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_DFL);
}

static unsigned count_fds(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* A hang is ended by the alarm that main sets. */
static void what_is_no_sound_file_is_refused_without_waiting(void)
{
    const struct xa_format *format = xa_format_by_code(XENSND_PCM_FORMAT_S16_LE);
    struct xa_soundfile_info info;
    struct xa_soundfile *file;
    unsigned before = count_fds();
    int fd;

    CHECK_EQ(xa_soundfile_probe(path_of("missing.wav"), &info), -ENOENT);
    CHECK_EQ(xa_soundfile_open(path_of("missing.wav"), format, &info, &file), -ENOENT);
    fd = open(path_of("text.wav"), O_WRONLY | O_CREAT, 0600);
    CHECK_EQ(write(fd, "RIFF, but only in name", 22), 22);
    close(fd);
    CHECK_EQ(xa_soundfile_probe(path_of("text.wav"), &info), -EINVAL);
    CHECK_EQ(xa_soundfile_open(path_of("text.wav"), format, &info, &file), -EINVAL);
    close(open(path_of("empty.wav"), O_WRONLY | O_CREAT, 0600));
    CHECK_EQ(xa_soundfile_probe(path_of("empty.wav"), &info), -EINVAL);

    CHECK_EQ(mkfifo(path_of("fifo.wav"), 0600), 0);
    CHECK_EQ(xa_soundfile_probe(path_of("fifo.wav"), &info), -EINVAL);
    CHECK_EQ(xa_soundfile_open(path_of("fifo.wav"), format, &info, &file), -EINVAL);
    CHECK_EQ(xa_soundfile_create(path_of("fifo.wav"), false, format, 8000, 1, &file), -EINVAL);
    CHECK_EQ(xa_soundfile_probe(dir, &info), -EINVAL);
    CHECK_EQ(xa_soundfile_open(dir, format, &info, &file), -EINVAL);
    CHECK_EQ(xa_soundfile_create("/dev/null", false, format, 8000, 1, &file), -EINVAL);
    CHECK_EQ(xa_soundfile_create(dir, false, format, 8000, 1, &file), -EISDIR);
    CHECK_EQ(xa_soundfile_create(dir, true, format, 8000, 1, &file), -EEXIST);
    CHECK_EQ(xa_soundfile_create(path_of("n.wav"), false, format, 8000, 1025, &file), -ENOTSUP);
    CHECK_EQ(count_fds(), before);
}

/* ---- outputs and inputs ---- */

static void an_output_file_has_the_gaps_but_not_the_silence_around(void)
{
    static const int16_t told[] = {1, 2, 3, 4, 5, 0, 0, 0, 6, 7};
    struct xa_route route = file_route("o.wav");
    struct xa_pcm_params params = params_of(XENSND_PCM_FORMAT_S16_LE, 1000, 1);
    struct xa_output *o;
    int16_t got[16] = {0};

    CHECK_EQ(xa_output_open(&route, &params, &wakes, &o), 0);
    o->ops->start(o, 0);
    CHECK_EQ(o->ops->wants(o, 5000000), 5);
    o->ops->silence(o, 4);
    CHECK_EQ(o->ops->wants(o, 5000000), 1);
    o->ops->write(o, told, 5);
    o->ops->silence(o, 2);
    o->ops->stop(o, 10000000, true);
    CHECK_EQ(o->ops->wants(o, 900000000), 0);
    o->ops->start(o, 900000000);
    o->ops->silence(o, 1);
    o->ops->write(o, told + 8, 2);
    CHECK_EQ(o->ops->when(o, 3), 900000000 + 6000000);
    CHECK_EQ(o->ops->delay(o, 901000000), 0);
    o->ops->silence(o, 9);
    CHECK_EQ(o->ops->lost(o), 0);
    o->ops->close(o);
    CHECK_EQ(read_as("o.wav", XENSND_PCM_FORMAT_S16_LE, got, 16), 10);
    CHECK_EQ(memcmp(got, told, sizeof(told)), 0);
}

/* However long a guest starts and stops without a sample: the silence before its next one is not
 * more than can be written at once, which would stall every other stream. */
static void a_gap_is_not_longer_than_the_spool(void)
{
    struct xa_route route = file_route("gap.wav");
    struct xa_pcm_params params = params_of(XENSND_PCM_FORMAT_S16_LE, 1000, 1);
    struct xa_soundfile_info info;
    struct xa_output *o;

    CHECK_EQ(xa_output_open(&route, &params, &wakes, &o), 0);
    o->ops->start(o, 0);
    o->ops->write(o, samples, 1);
    for (unsigned i = 0; i < 1000; i++)
        o->ops->silence(o, UINT32_MAX / 2);
    o->ops->write(o, samples, 1);
    o->ops->close(o);
    CHECK_EQ(xa_soundfile_probe(path_of("gap.wav"), &info), 0);
    CHECK(info.frames <= 2 + 65536 / 2);
}

static void numbered_files_overwrite_nothing(void)
{
    struct xa_route route = file_route("n.wav");
    struct xa_pcm_params params = params_of(XENSND_PCM_FORMAT_U8, 8000, 1);
    struct xa_soundfile_info info;

    route.numbered = true;
    for (uint32_t i = 1; i <= 3; i++) {
        struct xa_output *o;

        CHECK_EQ(xa_output_open(&route, &params, &wakes, &o), 0);
        o->ops->start(o, 0);
        o->ops->write(o, samples, i);
        o->ops->close(o);
    }
    CHECK_EQ(xa_soundfile_probe(path_of("n.wav"), &info), 0);
    CHECK_EQ(info.frames, 1);
    CHECK_EQ(xa_soundfile_probe(path_of("n-2.wav"), &info), 0);
    CHECK_EQ(info.frames, 2);
    CHECK_EQ(xa_soundfile_probe(path_of("n-3.wav"), &info), 0);
    CHECK_EQ(info.frames, 3);
}

static void routes_that_cannot_be_opened_say_why(void)
{
    struct xa_route route = file_route("no-such/o.wav");
    struct xa_pcm_params params = params_of(XENSND_PCM_FORMAT_S16_LE, 8000, 1);
    struct xa_output *o;
    struct xa_input *in;

    CHECK_EQ(xa_output_open(&route, &params, &wakes, &o), -ENOENT);
    CHECK_EQ(xa_input_open(&route, &params, &wakes, &in), -ENOENT);
    params = params_of(XENSND_PCM_FORMAT_IEC958_SUBFRAME_LE, 8000, 1);
    route = file_route("iec.wav");
    CHECK_EQ(xa_output_open(&route, &params, &wakes, &o), -ENOTSUP);
    make_wav("in.wav", XENSND_PCM_FORMAT_S16_LE, 8000, 1, samples, 10);
    route = file_route("in.wav");
    params = params_of(XENSND_PCM_FORMAT_S16_LE, 44100, 1);
    CHECK_EQ(xa_input_open(&route, &params, &wakes, &in), -ENOTSUP);
    params = params_of(XENSND_PCM_FORMAT_S16_LE, 8000, 2);
    CHECK_EQ(xa_input_open(&route, &params, &wakes, &in), -ENOTSUP);
    route.kind = (enum xa_route_kind) 99;
    CHECK_EQ(xa_output_open(&route, &params, &wakes, &o), -EINVAL);
    CHECK_EQ(xa_input_open(&route, &params, &wakes, &in), -EINVAL);
}

static void an_input_file_is_read_once_or_for_ever(void)
{
    static const int16_t tune[] = {11, 22, 33};
    struct xa_route route = file_route("tune.wav");
    struct xa_pcm_params params = params_of(XENSND_PCM_FORMAT_S16_LE, 1000, 1);
    struct xa_input *in;
    int16_t got[8];

    make_wav("tune.wav", XENSND_PCM_FORMAT_S16_LE, 1000, 1, tune, 3);
    CHECK_EQ(xa_input_open(&route, &params, &wakes, &in), 0);
    in->ops->start(in, 0);
    CHECK_EQ(in->ops->ready(in, 8000000), 8);
    in->ops->read(in, got, 8);
    CHECK_EQ(memcmp(got, tune, sizeof(tune)), 0);
    for (unsigned i = 3; i < 8; i++)
        CHECK_EQ(got[i], 0);
    CHECK_EQ(in->ops->ready(in, 8000000), 0);
    CHECK_EQ(in->ops->when(in, 2), 10000000);
    in->ops->stop(in);
    CHECK_EQ(in->ops->ready(in, 80000000), 0);
    in->ops->close(in);

    route.loop = true;
    CHECK_EQ(xa_input_open(&route, &params, &wakes, &in), 0);
    in->ops->start(in, 0);
    for (unsigned i = 0; i < 9000; i++) { /* further than the spool, which is filled meanwhile */
        const struct timespec moment = {.tv_nsec = 1000000};

        in->ops->read(in, got, 1);
        CHECK_EQ(got[0], tune[i % 3]);
        if (i % 1000 == 0)
            nanosleep(&moment, NULL);
    }
    in->ops->close(in);
}

/* A loop over a file that has nothing (left) to repeat ends. */
static void an_empty_file_is_silence(void)
{
    struct xa_route route = file_route("nothing.wav");
    struct xa_pcm_params params = params_of(XENSND_PCM_FORMAT_U8, 1000, 1);
    struct xa_input *in;
    uint8_t got[4];

    route.loop = true;
    make_wav("nothing.wav", XENSND_PCM_FORMAT_U8, 1000, 1, samples, 0);
    CHECK_EQ(xa_input_open(&route, &params, &wakes, &in), 0);
    in->ops->start(in, 0);
    in->ops->read(in, got, 4);
    for (unsigned i = 0; i < 4; i++)
        CHECK_EQ(got[i], 128);
    in->ops->close(in);
}

static void a_file_cut_short_while_it_loops_ends_too(void)
{
    struct xa_route route = file_route("cut.wav");
    struct xa_pcm_params params = params_of(XENSND_PCM_FORMAT_S16_LE, 8000, 1);
    struct xa_input *in;
    int16_t got[4000];

    route.loop = true;
    make_wav("cut.wav", XENSND_PCM_FORMAT_S16_LE, 8000, 1, samples, FRAMES);
    CHECK_EQ(xa_input_open(&route, &params, &wakes, &in), 0);
    CHECK_EQ(truncate(route.path, 44), 0);
    in->ops->start(in, 0);
    for (unsigned i = 0; i < 30; i++)
        in->ops->read(in, got, 4000);
    in->ops->close(in); /* waits for the reader */
}

static void the_null_output_and_input_keep_time(void)
{
    struct xa_route route = {.kind = XA_ROUTE_NULL};
    struct xa_pcm_params params = params_of(XENSND_PCM_FORMAT_U16_LE, 1000, 1);
    struct xa_output *o;
    struct xa_input *in;
    uint16_t got[2] = {1, 1};

    CHECK_EQ(xa_output_open(&route, &params, &wakes, &o), 0);
    CHECK_EQ(o->ops->wants(o, 1000000000), 0);
    o->ops->start(o, 1000000000);
    CHECK_EQ(o->ops->wants(o, 1010000000), 10);
    o->ops->write(o, samples, 6);
    o->ops->silence(o, 2);
    CHECK_EQ(o->ops->wants(o, 1010000000), 2);
    CHECK_EQ(o->ops->when(o, 3), 1011000000);
    CHECK_EQ(o->ops->lost(o), 0);
    o->ops->stop(o, 1020000000, false);
    CHECK_EQ(o->ops->wants(o, 2000000000), 0);
    o->ops->close(o);
    CHECK_EQ(xa_input_open(&route, &params, &wakes, &in), 0);
    in->ops->start(in, 0);
    CHECK_EQ(in->ops->ready(in, 2000000), 2);
    in->ops->read(in, got, 2);
    CHECK_EQ(got[0], 0x8000);
    CHECK_EQ(got[1], 0x8000);
    in->ops->stop(in);
    in->ops->close(in);
}

static struct xa_caps any_caps(void)
{
    return (struct xa_caps){.formats = xa_format_all_mask(),
                            .rates = {44100, 48000},
                            .rate_count = 2,
                            .channels_min = 1,
                            .channels_max = 8,
                            .buffer_octets_max = 65536};
}

static bool same_caps(const struct xa_caps *a, const struct xa_caps *b)
{
    return a->formats == b->formats && !memcmp(a->rates, b->rates, sizeof(a->rates)) &&
           a->rate_count == b->rate_count && a->channels_min == b->channels_min &&
           a->channels_max == b->channels_max && a->buffer_octets_max == b->buffer_octets_max &&
           a->buffer_us_suited == b->buffer_us_suited;
}

static void a_route_narrows_what_the_card_can_do(void)
{
    const uint64_t iec = UINT64_C(3) << XENSND_PCM_FORMAT_IEC958_SUBFRAME_LE;
    struct xa_route route = {.kind = XA_ROUTE_NULL};
    struct xa_caps caps = any_caps(), before = any_caps();

    CHECK_EQ(xa_route_narrow(&route, false, &caps), 0);
    CHECK(same_caps(&caps, &before));
    CHECK_EQ(xa_route_narrow(&route, true, &caps), 0);
    CHECK(same_caps(&caps, &before));

    route = file_route("r.wav");
    CHECK_EQ(xa_route_narrow(&route, false, &caps), 0);
    CHECK_EQ(caps.formats, xa_format_all_mask() & ~iec);
    caps.formats = iec;
    CHECK_EQ(xa_route_narrow(&route, false, &caps), -ENOTSUP);

    make_wav("r.wav", XENSND_PCM_FORMAT_S16_LE, 48000, 2, samples, 10);
    caps = any_caps();
    CHECK_EQ(xa_route_narrow(&route, true, &caps), 0);
    CHECK_EQ(caps.rate_count, 1);
    CHECK_EQ(caps.rates[0], 48000);
    CHECK_EQ(caps.channels_min, 2);
    CHECK_EQ(caps.channels_max, 2);
    CHECK(caps.formats >> XENSND_PCM_FORMAT_S16_LE & 1);
    CHECK(caps.formats >> XENSND_PCM_FORMAT_F32_LE & 1);
    CHECK(!(caps.formats >> XENSND_PCM_FORMAT_U8 & 1));

    caps = any_caps();
    caps.channels_max = 1;
    CHECK_EQ(xa_route_narrow(&route, true, &caps), -ENOTSUP);
    caps = any_caps();
    caps.rate_count = 1; /* 44.1 kHz */
    CHECK_EQ(xa_route_narrow(&route, true, &caps), -ENOTSUP);
    caps = any_caps();
    caps.formats = UINT64_C(1) << XENSND_PCM_FORMAT_S8;
    CHECK_EQ(xa_route_narrow(&route, true, &caps), -ENOTSUP);
    route = file_route("missing.wav");
    caps = any_caps();
    CHECK_EQ(xa_route_narrow(&route, true, &caps), -ENOENT);
}

static void remove_files(void)
{
    static const char *const names[] = {
        "back.wav",  "f.flac",   "w.wav",   "l.wav",   "x.wav",       "s.wav",    "text.wav",
        "empty.wav", "fifo.wav", "o.wav",   "gap.wav", "n.wav",       "n-2.wav",  "n-3.wav",
        "in.wav",    "tune.wav", "cut.wav", "r.wav",   "nothing.wav", "full.wav", "full-2.wav"};

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        unlink(path_of(names[i]));
    CHECK_EQ(rmdir(dir), 0); /* so nothing else was made */
}

int main(void)
{
    alarm(60);
    if (!mkdtemp(dir)) {
        perror(dir);
        return 1;
    }
    every_pcm_format_comes_back_bit_for_bit();
    flac_holds_whole_numbers_up_to_24_bits();
    a_file_of_16_bits_widens_exactly();
    what_would_lose_bits_is_refused();
    exclusive_creation_overwrites_nothing();
    what_is_written_is_readable_after_sync();
    a_full_disk_is_told();
    what_is_no_sound_file_is_refused_without_waiting();
    an_output_file_has_the_gaps_but_not_the_silence_around();
    a_gap_is_not_longer_than_the_spool();
    numbered_files_overwrite_nothing();
    routes_that_cannot_be_opened_say_why();
    an_input_file_is_read_once_or_for_ever();
    an_empty_file_is_silence();
    a_file_cut_short_while_it_loops_ends_too();
    the_null_output_and_input_keep_time();
    a_route_narrows_what_the_card_can_do();
    remove_files();
    return check_result();
}
