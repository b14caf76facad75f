/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sound files in the wire's sample formats: see soundfile.h. */
#include "soundfile/soundfile.h"

#include <errno.h>
#include <fcntl.h>
#include <sndfile.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 4096 }; /* samples converted at once */

/* A WAV file's sizes have 32 bits; some are left for its header. */
#define WAV_OCTETS_MOST (UINT64_C(0xffffffff) - 65536)

struct xa_soundfile {
    SNDFILE *handle;
    int fd;
    const struct xa_format *format;
    uint32_t channels;
    uint64_t frames_left; /* writing: until the file is as long as it can be */
    bool failed;
};

/* The WAV encoding that holds a wire format exactly, or 0. */
static int wav_subtype(const struct xa_format *format)
{
    switch (format->type) {
    case XA_SAMPLE_SIGNED:
    case XA_SAMPLE_UNSIGNED:
        switch (format->sample_bits) {
        case 8:
            return SF_FORMAT_PCM_U8; /* WAV has no signed octets: the offset is added */
        case 16:
            return SF_FORMAT_PCM_16;
        case 24:
            return SF_FORMAT_PCM_24;
        default:
            return SF_FORMAT_PCM_32;
        }
    case XA_SAMPLE_FLOAT:
        return format->sample_bits == 64 ? SF_FORMAT_DOUBLE : SF_FORMAT_FLOAT;
    case XA_SAMPLE_MU_LAW:
        return SF_FORMAT_ULAW;
    case XA_SAMPLE_A_LAW:
        return SF_FORMAT_ALAW;
    case XA_SAMPLE_IEC958:
        return 0;
    }
    return 0;
}

static bool is_law(const struct xa_format *format)
{
    return format->type == XA_SAMPLE_MU_LAW || format->type == XA_SAMPLE_A_LAW;
}

/* Bits that carry the value in a file's encoding; 0: not linear PCM of whole numbers. */
static int subtype_bits(int subtype)
{
    switch (subtype) {
    case SF_FORMAT_PCM_S8:
    case SF_FORMAT_PCM_U8:
        return 8;
    case SF_FORMAT_PCM_16:
        return 16;
    case SF_FORMAT_PCM_24:
        return 24;
    case SF_FORMAT_PCM_32:
        return 32;
    default:
        return 0;
    }
}

/* One sample's octets as an unsigned number. */
static uint64_t load(const struct xa_format *format, const uint8_t *sample)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < format->sample_octets; i++) {
        unsigned at = format->big_endian ? format->sample_octets - 1u - i : i;

        value |= (uint64_t) sample[at] << (8 * i);
    }
    return value;
}

static void store(const struct xa_format *format, uint8_t *sample, uint64_t value)
{
    for (unsigned i = 0; i < format->sample_octets; i++) {
        unsigned at = format->big_endian ? format->sample_octets - 1u - i : i;

        sample[at] = (uint8_t) (value >> (8 * i));
    }
}

/* libsndfile's int samples carry the value in their high bits. */
static int32_t load_int(const struct xa_format *format, const uint8_t *sample)
{
    uint32_t value = (uint32_t) load(format, sample) << (32 - format->sample_bits);

    if (format->type == XA_SAMPLE_UNSIGNED)
        value ^= UINT32_C(0x80000000);
    return (int32_t) value;
}

static void store_int(const struct xa_format *format, uint8_t *sample, int32_t value)
{
    uint32_t bits = (uint32_t) value;
    unsigned shift = 32u - format->sample_bits;

    if (format->type == XA_SAMPLE_UNSIGNED)
        store(format, sample, (bits ^ UINT32_C(0x80000000)) >> shift);
    else /* 24 bits are sign-extended into their four octets, as ALSA has them */
        store(format, sample, (uint32_t) (value >> shift));
}

/* Floats move as bits, by address: a conversion would alter signalling NaNs. */
static void load_float(const struct xa_format *format, const uint8_t *sample, float *value)
{
    uint32_t bits = (uint32_t) load(format, sample);

    memcpy(value, &bits, sizeof(bits));
}

static void store_float(const struct xa_format *format, uint8_t *sample, const float *value)
{
    uint32_t bits;

    memcpy(&bits, value, sizeof(bits));
    store(format, sample, bits);
}

static void load_double(const struct xa_format *format, const uint8_t *sample, double *value)
{
    uint64_t bits = load(format, sample);

    memcpy(value, &bits, sizeof(bits));
}

static void store_double(const struct xa_format *format, uint8_t *sample, const double *value)
{
    uint64_t bits;

    memcpy(&bits, value, sizeof(bits));
    store(format, sample, bits);
}

bool xa_soundfile_holds(const struct xa_format *format)
{
    return format && wav_subtype(format) != 0;
}

/* A pipe or a device would make its thread wait. */
static bool is_regular(int fd)
{
    struct stat status;

    return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

/* Takes over `fd`, also when it fails. */
static int wrap(int fd, int mode, SF_INFO *info, const struct xa_format *format,
                struct xa_soundfile **file)
{
    struct xa_soundfile *new = calloc(1, sizeof(*new));

    if (!new) {
        close(fd);
        return -ENOMEM;
    }
    /* Not libsndfile's to close: when opening fails, it closes the descriptor only mostly. */
    new->handle = sf_open_fd(fd, mode, info, SF_FALSE);
    if (!new->handle) {
        close(fd);
        free(new);
        return -EINVAL;
    }
    new->fd = fd;
    new->format = format;
    new->channels = (uint32_t) info->channels;
    *file = new;
    return 0;
}

/* libsndfile's format for a new file: FLAC by the name's ending, else WAV. 0: it cannot hold the
 * wire format exactly. */
static int file_format(const char *path, const struct xa_format *format)
{
    size_t length = strlen(path);
    int subtype = wav_subtype(format);

    if (length < 5 || strcasecmp(path + length - 5, ".flac") != 0)
        return subtype ? SF_FORMAT_WAV | subtype : 0;
    switch (subtype) {
    case SF_FORMAT_PCM_U8:
        return SF_FORMAT_FLAC | SF_FORMAT_PCM_S8;
    case SF_FORMAT_PCM_16:
    case SF_FORMAT_PCM_24:
        return SF_FORMAT_FLAC | subtype;
    default:
        return 0;
    }
}

int xa_soundfile_create(const char *path, bool exclusive, const struct xa_format *format,
                        uint32_t rate, uint32_t channels, struct xa_soundfile **file)
{
    SF_INFO info = {
        .samplerate = (int) rate,
        .channels = (int) channels,
        .format = file_format(path, format),
    };
    int fd, error;

    if (info.format == 0 || !sf_format_check(&info))
        return -ENOTSUP;
    fd = open(path,
              O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (exclusive ? O_EXCL : O_TRUNC),
              0644);
    if (fd < 0)
        return -errno;
    if (!is_regular(fd)) {
        close(fd);
        return -EINVAL;
    }
    error = wrap(fd, SFM_WRITE, &info, format, file);
    if (!error)
        (*file)->frames_left = WAV_OCTETS_MOST / xa_format_frame_octets(format, channels);
    return error;
}

static uint32_t write_frames(struct xa_soundfile *file, const void *samples, uint32_t frames)
{
    const struct xa_format *format = file->format;
    const uint8_t *from = samples;
    uint32_t chunk = CHUNK / file->channels, done = 0;

    if (is_law(format)) {
        sf_count_t octets =
            sf_write_raw(file->handle, samples, (sf_count_t) frames * file->channels);

        done = octets > 0 ? (uint32_t) octets / file->channels : 0;
    }
    while (!is_law(format) && done < frames) {
        uint32_t some = frames - done < chunk ? frames - done : chunk;
        sf_count_t wrote;

        if (format->type == XA_SAMPLE_FLOAT && format->sample_bits == 64) {
            double buffer[CHUNK];

            for (uint32_t i = 0; i < some * file->channels; i++, from += format->sample_octets)
                load_double(format, from, &buffer[i]);
            wrote = sf_writef_double(file->handle, buffer, some);
        } else if (format->type == XA_SAMPLE_FLOAT) {
            float buffer[CHUNK];

            for (uint32_t i = 0; i < some * file->channels; i++, from += format->sample_octets)
                load_float(format, from, &buffer[i]);
            wrote = sf_writef_float(file->handle, buffer, some);
        } else {
            int buffer[CHUNK];

            for (uint32_t i = 0; i < some * file->channels; i++, from += format->sample_octets)
                buffer[i] = load_int(format, from);
            wrote = sf_writef_int(file->handle, buffer, some);
        }
        if (wrote > 0)
            done += (uint32_t) wrote;
        if (wrote < (sf_count_t) some)
            break;
    }
    return done;
}

uint32_t xa_soundfile_write(struct xa_soundfile *file, const void *samples, uint32_t frames)
{
    uint32_t some = frames < file->frames_left ? frames : (uint32_t) file->frames_left;
    uint32_t done = write_frames(file, samples, some);

    file->frames_left -= done;
    if (done < frames)
        file->failed = true;
    return done;
}

void xa_soundfile_sync(struct xa_soundfile *file)
{
    sf_command(file->handle, SFC_UPDATE_HEADER_NOW, NULL, 0);
}

static int open_for_reading(const char *path, SF_INFO *info, int *fd)
{
    *info = (SF_INFO){0};
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (*fd < 0)
        return -errno;
    if (is_regular(*fd))
        return 0;
    close(*fd);
    return -EINVAL;
}

static void describe(const SF_INFO *sf, struct xa_soundfile_info *info)
{
    info->rate = (uint32_t) sf->samplerate;
    info->channels = (uint32_t) sf->channels;
    info->frames = (uint64_t) sf->frames;
    info->subtype = sf->format & SF_FORMAT_SUBMASK;
}

int xa_soundfile_probe(const char *path, struct xa_soundfile_info *info)
{
    SNDFILE *handle;
    SF_INFO sf;
    int fd, error = open_for_reading(path, &sf, &fd);

    if (error)
        return error;
    handle = sf_open_fd(fd, SFM_READ, &sf, SF_FALSE);
    if (handle) {
        describe(&sf, info);
        sf_close(handle);
    }
    close(fd);
    return handle ? 0 : -EINVAL;
}

bool xa_soundfile_reads_as(const struct xa_soundfile_info *info, const struct xa_format *format)
{
    int bits = subtype_bits(info->subtype);

    if (!format)
        return false;
    switch (format->type) {
    case XA_SAMPLE_SIGNED:
    case XA_SAMPLE_UNSIGNED:
        return bits > 0 && bits <= format->sample_bits;
    case XA_SAMPLE_FLOAT: /* the mantissa holds 24 or 53 bits */
        if (info->subtype == SF_FORMAT_DOUBLE)
            return format->sample_bits == 64;
        return info->subtype == SF_FORMAT_FLOAT ||
               (bits > 0 && bits <= (format->sample_bits == 64 ? 32 : 24));
    case XA_SAMPLE_MU_LAW:
        return info->subtype == SF_FORMAT_ULAW;
    case XA_SAMPLE_A_LAW:
        return info->subtype == SF_FORMAT_ALAW;
    case XA_SAMPLE_IEC958:
        return false;
    }
    return false;
}

int xa_soundfile_open(const char *path, const struct xa_format *format,
                      struct xa_soundfile_info *info, struct xa_soundfile **file)
{
    SF_INFO sf;
    int fd, error = open_for_reading(path, &sf, &fd);

    if (error)
        return error;
    error = wrap(fd, SFM_READ, &sf, format, file);
    if (error)
        return error;
    describe(&sf, info);
    if (xa_soundfile_reads_as(info, format))
        return 0;
    xa_soundfile_close(*file);
    return -ENOTSUP;
}

uint32_t xa_soundfile_read(struct xa_soundfile *file, void *samples, uint32_t frames)
{
    const struct xa_format *format = file->format;
    uint8_t *to = samples;
    uint32_t chunk = CHUNK / file->channels, done = 0;

    if (is_law(format)) {
        sf_count_t octets =
            sf_read_raw(file->handle, samples, (sf_count_t) frames * file->channels);

        return octets > 0 ? (uint32_t) octets / file->channels : 0;
    }
    while (done < frames) {
        uint32_t some = frames - done < chunk ? frames - done : chunk;
        sf_count_t got;

        if (format->type == XA_SAMPLE_FLOAT && format->sample_bits == 64) {
            double buffer[CHUNK];

            got = sf_readf_double(file->handle, buffer, some);
            for (sf_count_t i = 0; i < got * (sf_count_t) file->channels; i++) {
                store_double(format, to, &buffer[i]);
                to += format->sample_octets;
            }
        } else if (format->type == XA_SAMPLE_FLOAT) {
            float buffer[CHUNK];

            got = sf_readf_float(file->handle, buffer, some);
            for (sf_count_t i = 0; i < got * (sf_count_t) file->channels; i++) {
                store_float(format, to, &buffer[i]);
                to += format->sample_octets;
            }
        } else {
            int buffer[CHUNK];

            got = sf_readf_int(file->handle, buffer, some);
            for (sf_count_t i = 0; i < got * (sf_count_t) file->channels; i++) {
                store_int(format, to, buffer[i]);
                to += format->sample_octets;
            }
        }
        if (got > 0)
            done += (uint32_t) got;
        if (got < (sf_count_t) some)
            break;
    }
    return done;
}

void xa_soundfile_rewind(struct xa_soundfile *file)
{
    sf_seek(file->handle, 0, SEEK_SET);
}

int xa_soundfile_close(struct xa_soundfile *file)
{
    int error = sf_close(file->handle) ? -EIO : 0;

    if (close(file->fd) < 0 || file->failed)
        error = -EIO;
    free(file);
    return error;
}
