/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sound files (through libsndfile) in the wire's sample formats: what is written can be read back
 * bit for bit. Every call may block on the disk. One thread at a time for each file.
 */
#ifndef XA_SOUNDFILE_SOUNDFILE_H
#define XA_SOUNDFILE_SOUNDFILE_H

#include <stdbool.h>
#include <stdint.h>

#include "sndif/format.h"

/* cffi: begin */
struct xa_soundfile;

struct xa_soundfile_info {
    uint32_t rate; /* Hz */
    uint32_t channels;
    uint64_t frames;
    int subtype; /* SF_FORMAT_SUBMASK part of libsndfile's format */
};

/* Whether a WAV file can hold the format exactly: every PCM format but IEC 60958 subframes. */
bool xa_soundfile_holds(const struct xa_format *format);

/* Creates (or truncates; with `exclusive`, refuses with -EEXIST) a file for frames of this kind:
 * FLAC when the name ends in .flac, else WAV. 0; -ENOTSUP when the file cannot hold the format
 * exactly (FLAC: whole numbers of at most 24 bits); -EINVAL when `path` is something else than a
 * regular file; or another negative errno value. */
int xa_soundfile_create(const char *path, bool exclusive, const struct xa_format *format,
                        uint32_t rate, uint32_t channels, struct xa_soundfile **file);

/* Appends frames. The number written: fewer than `frames` when the disk is full or broken,
 * or the file has 4 GiB, which is all that WAV can have. */
uint32_t xa_soundfile_write(struct xa_soundfile *file, const void *samples, uint32_t frames);

/* Brings the file's header up to date, so that what is written so far is readable. */
void xa_soundfile_sync(struct xa_soundfile *file);

/* The header of an existing file. -ENOENT and the like, or -EINVAL: not a sound file. */
int xa_soundfile_probe(const char *path, struct xa_soundfile_info *info);

/* Whether a file's samples can be given in this format without loss. */
bool xa_soundfile_reads_as(const struct xa_soundfile_info *info, const struct xa_format *format);

int xa_soundfile_open(const char *path, const struct xa_format *format,
                      struct xa_soundfile_info *info, struct xa_soundfile **file);

/* Takes the next frames; fewer than asked at the end of the file. */
uint32_t xa_soundfile_read(struct xa_soundfile *file, void *samples, uint32_t frames);

/* Back to the first frame. */
void xa_soundfile_rewind(struct xa_soundfile *file);

/* 0, or -EIO when not everything could be written. */
int xa_soundfile_close(struct xa_soundfile *file);
/* cffi: end */

#endif
