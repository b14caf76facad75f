/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The card's state machine; see card.h.
 *
 * One request to the store is under way at a time (publishing, which is one transaction, counts as
 * one). What happens meanwhile sets a flag; advance() looks at the flags whenever nothing is under
 * way, reads again what may have changed, and only then decides. So every decision is made on
 * values read after the last change that we know of.
 */
#include "card.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xen/io/xenbus.h>

#include "hv/store.h"
#include "sndif/xen.h"
#include "stream_private.h"

#define SECOND_US UINT64_C(1000000)
#define CLOSE_LIMIT_US (2 * SECOND_US)
#define NEGOTIATE_LIMIT_US (10 * SECOND_US)
#define STORE_RETRY_US SECOND_US
#define STORE_ANSWER_LIMIT_US (10 * SECOND_US)
#define FAILED_RETRY_US (5 * SECOND_US)
/* After a broken protocol, so that a backend that breaks it each time does not keep us busy. */
#define BROKEN_PAUSE_US SECOND_US

#define PATH_OCTETS 320
#define BACKEND_OCTETS 256
#define TOKEN_DEVICE "xenaudio-device"
#define TOKEN_BACKEND "xenaudio-backend"

enum phase {
    PHASE_START,     /* nothing of the device is known */
    PHASE_IDLE,      /* absent, failed or closed: nothing to do before something changes */
    PHASE_WAIT,      /* own state 1: for the backend's 2 */
    PHASE_PUBLISHED, /* own state 3: for the backend's 4 */
    PHASE_CONNECTED,
    PHASE_CLOSING, /* own state 5: for the backend's 5 or 6 */
    PHASE_CLOSED,  /* own state 6: for the backend's 6 or 2 */
};

/* The nodes of one level of the configuration, and where in it the reading is. */
enum level { LEVEL_CARD, LEVEL_PCM, LEVEL_STREAM };

static const char *const inherited_nodes[] = {
    XENSND_FIELD_CHANNELS_MIN,   XENSND_FIELD_CHANNELS_MAX, XENSND_FIELD_SAMPLE_RATES,
    XENSND_FIELD_SAMPLE_FORMATS, XENSND_FIELD_BUFFER_SIZE,
};
static const char *const card_nodes[] = {
    XENSND_FIELD_VCARD_SHORT_NAME,
    XENSND_FIELD_VCARD_LONG_NAME,
};
static const char *const pcm_nodes[] = {XENSND_FIELD_DEVICE_NAME};
static const char *const stream_nodes[] = {
    XENSND_FIELD_TYPE,
    XENSND_FIELD_STREAM_UNIQUE_ID,
};
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct reader {
    enum level level;
    size_t node;
    uint32_t pcms;    /* bit for each PCM device that is left to read */
    uint32_t streams; /* of the current PCM device */
    unsigned pcm, stream;
    struct xa_pcm_config inherited[3];
    char pcm_name[128];
    struct xa_stream_config config;
    bool has_type;
    struct xa_stream_config found[XA_CARD_STREAMS];
    unsigned count;
};

struct xa_card {
    struct xa_hv *hv;
    struct xa_card_callbacks callbacks;
    void *user;
    char base[32];

    struct xa_store *store;
    uint64_t store_retry_us;
    bool connecting;    /* the owner is to call xa_card_take_store */
    bool handed_over;   /* it did: */
    int handed_fd;      /* what has not been used yet */
    uint64_t answer_us; /* while `busy`: when the answer is overdue */
    unsigned fds_serial;
    uint64_t now;

    enum xa_card_state state;
    int error;
    char reason[256];
    char short_name[128];
    char long_name[128];

    enum phase phase;
    uint64_t deadline_us;   /* of the phase, UINT64_MAX: none */
    uint64_t not_before_us; /* of a new negotiation */
    bool busy;              /* a request to the store is under way */
    bool store_broken;      /* it refused one: the connection is to begin anew */
    int watch_error;        /* it refused a watch: likewise */
    bool config_refused;    /* not looked at again before a watch fires */
    bool look_device, look_config, look_backend;
    bool want_close, want_reconnect;

    char backend[BACKEND_OCTETS]; /* its path, "" while unknown */
    uint16_t backend_id;
    int own;           /* our state as the store must have it, -1: not read yet */
    int backend_state; /* 0: there is none */
    int next_own;      /* being written */

    /* Of the re-reading of the device's nodes. */
    int read_own;
    char read_backend[BACKEND_OCTETS];

    struct reader *reader;

    unsigned version;
    uint32_t tx;
    int publish_error;
    struct xa_stream_transport transport[XA_CARD_STREAMS];

    struct xa_stream *streams[XA_CARD_STREAMS];
    unsigned stream_count;
};

static void set_state(struct xa_card *card, enum xa_card_state state, int reason,
                      const char *format, ...) __attribute__((format(printf, 4, 5)));

static void set_state(struct xa_card *card, enum xa_card_state state, int reason,
                      const char *format, ...)
{
    char text[sizeof(card->reason)];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (state == card->state && strcmp(text, card->reason) == 0)
        return;
    card->state = state;
    card->error = reason;
    memcpy(card->reason, text, sizeof(text));
    if (card->callbacks.card)
        card->callbacks.card(card->user, state, reason, card->reason);
}

/* No stream can be used any more; whoever had one open is told. */
static void stop_streams(struct xa_card *card)
{
    for (unsigned i = 0; i < card->stream_count; i++)
        xa_stream_offline(card->streams[i]);
}

static void let_go_of_streams(struct xa_card *card, bool ours)
{
    stop_streams(card);
    for (unsigned i = 0; i < card->stream_count; i++) {
        if (xa_stream_fd(card->streams[i]) >= 0)
            card->fds_serial++;
        xa_stream_release(card->streams[i], ours);
    }
    card->version = 0;
}

/* Gives back rings, channels and buffers. */
static void release_streams(struct xa_card *card)
{
    let_go_of_streams(card, true);
}

/* The same, where the device is not the one for which they were made: the domain may have been
 * saved and restored meanwhile, and then the channels are no longer ours to close. */
static void abandon_streams(struct xa_card *card)
{
    let_go_of_streams(card, false);
}

static void restart(struct xa_card *card)
{
    card->phase = PHASE_START;
    card->deadline_us = UINT64_MAX;
    card->own = -1;
    card->look_device = true;
}

static void go_idle(struct xa_card *card, enum xa_card_state state, int reason, const char *text)
{
    release_streams(card);
    card->phase = PHASE_IDLE;
    card->deadline_us = UINT64_MAX;
    set_state(card, state, reason, "%s", text);
}

static void fail(struct xa_card *card, int reason, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void fail(struct xa_card *card, int reason, const char *format, ...)
{
    char text[sizeof(card->reason)];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    go_idle(card, XA_CARD_FAILED, reason, text);
    card->deadline_us = card->now + FAILED_RETRY_US;
}

/* `error` of a request just made. */
static void requested(struct xa_card *card, int error)
{
    card->busy = error == 0;
    card->answer_us = card->now + STORE_ANSWER_LIMIT_US;
    card->store_broken = card->store_broken || error < 0;
}

static void read_node(struct xa_card *card, const char *path, xa_store_reply_fn fn)
{
    requested(card, xa_store_read(card->store, 0, path, fn, card));
}

/* Whether a reply says that nothing can follow it, the store being gone. */
static bool reply_lost(struct xa_card *card, int error)
{
    card->busy = false;
    return error == -EPIPE;
}

static int state_of(const char *data)
{
    uint64_t number;

    return xa_config_number(data, XenbusStateReconfigured, &number) < 0 ? 0 : (int) number;
}

/* ---- The device's own nodes: state, backend, backend-id ---- */

static void watched(void *user, int error, const char *data, size_t length)
{
    struct xa_card *card = user;

    (void) data;
    (void) length;
    if (error < 0)
        card->watch_error = error;
}

/* Without its watches a card would wait for ever for what it is not told. */
static void watch(struct xa_card *card, const char *path, const char *token)
{
    int error = xa_store_watch(card->store, path, token, watched, card);

    if (error < 0)
        card->watch_error = error;
}

static void device_read(struct xa_card *card, uint16_t backend_id)
{
    bool moved = strcmp(card->backend, card->read_backend) != 0 || card->backend_id != backend_id;
    char path[PATH_OCTETS];

    if (!moved && card->read_own == card->own && !card->config_refused)
        return;
    /* The device was made anew (attached, restored, moved), or we have only come to it. */
    if (moved) {
        if (card->backend[0] != '\0') {
            snprintf(path, sizeof(path), "%s/state", card->backend);
            (void) xa_store_unwatch(card->store, path, TOKEN_BACKEND, NULL, NULL);
        }
        memcpy(card->backend, card->read_backend, sizeof(card->backend));
        card->backend_id = backend_id;
        snprintf(path, sizeof(path), "%s/state", card->backend);
        watch(card, path, TOKEN_BACKEND);
    }
    abandon_streams(card);
    set_state(card, XA_CARD_STARTING, card->own < 0 ? 0 : -ECONNRESET, "%s",
              card->own < 0 ? "" : "the device was set up anew");
    card->own = card->read_own;
    card->config_refused = false;
    card->phase = PHASE_START;
    card->deadline_us = UINT64_MAX;
    card->look_config = true;
}

static void absent(struct xa_card *card)
{
    char text[96];

    card->own = -1;
    abandon_streams(card);
    snprintf(text, sizeof(text), "this guest has no sound card %s", card->base);
    go_idle(card, XA_CARD_ABSENT, -ENODEV, text);
}

/* The guest service has given the card to another program (guestd_wire.h). A watch fires when to
 * ask again may help. */
static void taken(struct xa_card *card)
{
    card->own = -1;
    abandon_streams(card);
    go_idle(card, XA_CARD_WAITING, -EBUSY,
            "another program of this guest has the card, or its kernel (snd_xen_front)");
}

static void on_backend_id(void *user, int error, const char *data, size_t length)
{
    struct xa_card *card = user;
    uint64_t id;

    (void) length;
    if (reply_lost(card, error))
        return;
    if (error == -ENOENT)
        absent(card);
    else if (error < 0 || xa_config_number(data, DOMID_FIRST_RESERVED - 1, &id) < 0)
        fail(card, error < 0 ? error : -EINVAL, "%s/backend-id is not a domain's number",
             card->base);
    else
        device_read(card, (uint16_t) id);
}

static void on_backend_path(void *user, int error, const char *data, size_t length)
{
    struct xa_card *card = user;
    char path[PATH_OCTETS];

    if (reply_lost(card, error))
        return;
    if (error == -ENOENT) {
        absent(card);
        return;
    }
    if (error < 0 || length == 0 || length >= sizeof(card->read_backend)) {
        fail(card, error < 0 ? error : -EINVAL, "%s/backend is not a path of at most %d octets",
             card->base, BACKEND_OCTETS - 1);
        return;
    }
    memcpy(card->read_backend, data, length + 1);
    snprintf(path, sizeof(path), "%s/backend-id", card->base);
    read_node(card, path, on_backend_id);
}

static void on_own_state(void *user, int error, const char *data, size_t length)
{
    struct xa_card *card = user;
    char path[PATH_OCTETS];

    (void) length;
    if (reply_lost(card, error))
        return;
    if (error == -ENOENT) {
        absent(card);
        return;
    }
    if (error == -EBUSY) {
        taken(card);
        return;
    }
    if (error < 0) {
        fail(card, error, "%s/state cannot be read: %s", card->base, strerror(-error));
        return;
    }
    card->read_own = state_of(data);
    snprintf(path, sizeof(path), "%s/backend", card->base);
    read_node(card, path, on_backend_path);
}

/* ---- The configuration ---- */

static void read_next(struct xa_card *card);

static void config_fails(struct xa_card *card, const char *what)
{
    struct reader *reader = card->reader;
    char where[64], text[192];

    if (reader->level == LEVEL_CARD)
        snprintf(where, sizeof(where), "%s", card->base);
    else if (reader->level == LEVEL_PCM)
        snprintf(where, sizeof(where), "%s/%u", card->base, reader->pcm);
    else
        snprintf(where, sizeof(where), "%s/%u/%u", card->base, reader->pcm, reader->stream);
    free(reader);
    card->reader = NULL;
    card->config_refused = true;
    snprintf(text, sizeof(text), "%s: %s", where, what);
    go_idle(card, XA_CARD_FAILED, -EINVAL, text);
}

static const char *node_name(const struct reader *reader)
{
    const char *const *own;
    size_t count;

    if (reader->level == LEVEL_CARD) {
        own = card_nodes;
        count = COUNT(card_nodes);
    } else if (reader->level == LEVEL_PCM) {
        own = pcm_nodes;
        count = COUNT(pcm_nodes);
    } else {
        own = stream_nodes;
        count = COUNT(stream_nodes);
    }
    if (reader->node < count)
        return own[reader->node];
    return reader->node - count < COUNT(inherited_nodes) ? inherited_nodes[reader->node - count]
                                                         : NULL;
}

static void level_path(const struct xa_card *card, char *path, size_t size, const char *node)
{
    const struct reader *reader = card->reader;
    const char *slash = *node ? "/" : "";

    if (reader->level == LEVEL_CARD)
        snprintf(path, size, "%s%s%s", card->base, slash, node);
    else if (reader->level == LEVEL_PCM)
        snprintf(path, size, "%s/%u%s%s", card->base, reader->pcm, slash, node);
    else
        snprintf(path, size, "%s/%u/%u%s%s", card->base, reader->pcm, reader->stream, slash, node);
}

static void copy_text(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from);
}

/* Takes a node's value: NULL when it is good, else what is wrong. */
static const char *take_node(struct xa_card *card, const char *node, const char *value)
{
    struct reader *reader = card->reader;

    if (reader->level == LEVEL_CARD && strcmp(node, XENSND_FIELD_VCARD_SHORT_NAME) == 0) {
        copy_text(card->short_name, sizeof(card->short_name), value);
    } else if (reader->level == LEVEL_CARD && strcmp(node, XENSND_FIELD_VCARD_LONG_NAME) == 0) {
        copy_text(card->long_name, sizeof(card->long_name), value);
    } else if (reader->level == LEVEL_PCM && strcmp(node, XENSND_FIELD_DEVICE_NAME) == 0) {
        copy_text(reader->pcm_name, sizeof(reader->pcm_name), value);
    } else if (reader->level == LEVEL_STREAM && strcmp(node, XENSND_FIELD_TYPE) == 0) {
        if (strcmp(value, XENSND_STREAM_TYPE_PLAYBACK) != 0 &&
            strcmp(value, XENSND_STREAM_TYPE_CAPTURE) != 0)
            return "type is neither p nor c";
        reader->config.capture = strcmp(value, XENSND_STREAM_TYPE_CAPTURE) == 0;
        reader->has_type = true;
    } else if (reader->level == LEVEL_STREAM && strcmp(node, XENSND_FIELD_STREAM_UNIQUE_ID) == 0) {
        copy_text(reader->config.unique_id, sizeof(reader->config.unique_id), value);
    } else if (xa_pcm_config_set(&reader->inherited[reader->level], node, value) < 0) {
        if (strcmp(node, XENSND_FIELD_SAMPLE_RATES) == 0)
            return "sample-rates is not a list of at most 32 rates of 1 to 768000 Hz";
        if (strcmp(node, XENSND_FIELD_SAMPLE_FORMATS) == 0)
            return "sample-formats names no PCM format";
        if (strcmp(node, XENSND_FIELD_BUFFER_SIZE) == 0)
            return "buffer-size is not a number of octets from 1 to 4294967295";
        return "channels-min or channels-max is not a number from 1 to 255";
    }
    return NULL;
}

static void on_node(void *user, int error, const char *data, size_t length)
{
    struct xa_card *card = user;
    const char *wrong;

    (void) length;
    if (reply_lost(card, error))
        return;
    if (error == 0) {
        wrong = take_node(card, node_name(card->reader), data);
        if (wrong) {
            config_fails(card, wrong);
            return;
        }
    } else if (error != -ENOENT) {
        config_fails(card, strerror(-error));
        return;
    }
    card->reader->node++;
    read_next(card);
}

/* The children of a directory whose names are numbers, as bits; false when one is 32 or more. */
static bool numbered(const char *data, size_t length, uint32_t *bits)
{
    *bits = 0;
    for (size_t at = 0; at < length; at += strlen(data + at) + 1) {
        uint64_t number;

        if (xa_config_number(data + at, UINT32_MAX, &number) < 0)
            continue;
        if (number >= XA_CARD_PCMS)
            return false;
        *bits |= UINT32_C(1) << number;
    }
    return true;
}

static void on_directory(void *user, int error, const char *data, size_t length)
{
    struct xa_card *card = user;
    struct reader *reader = card->reader;
    uint32_t bits;

    if (reply_lost(card, error))
        return;
    if (error < 0) {
        config_fails(card, strerror(-error));
        return;
    }
    if (!numbered(data, length, &bits)) {
        config_fails(card, "an index is larger than 31");
        return;
    }
    if (reader->level == LEVEL_CARD) {
        reader->pcms = bits;
        reader->streams = 0;
    } else {
        reader->streams = bits;
    }
    read_next(card);
}

static void stream_is_read(struct xa_card *card)
{
    struct reader *reader = card->reader;

    if (!reader->has_type) {
        config_fails(card, "type (p or c) is missing");
        return;
    }
    if (!xa_pcm_config_valid(&reader->inherited[LEVEL_STREAM])) {
        config_fails(card, "channels-min is larger than channels-max");
        return;
    }
    if (reader->count == XA_CARD_STREAMS) {
        config_fails(card, "the card has more than 64 streams");
        return;
    }
    reader->config.pcm = (uint8_t) reader->pcm;
    reader->config.index = (uint8_t) reader->stream;
    reader->config.pcm_config = reader->inherited[LEVEL_STREAM];
    memcpy(reader->config.pcm_name, reader->pcm_name, sizeof(reader->pcm_name));
    reader->found[reader->count++] = reader->config;
    reader->level = LEVEL_PCM;
    reader->node = SIZE_MAX;
    read_next(card);
}

static struct xa_stream *stream_at(struct xa_card *card, const struct xa_stream_config *config)
{
    for (unsigned i = 0; i < card->stream_count; i++) {
        const struct xa_stream_config *old = xa_stream_config(card->streams[i]);

        if (old->pcm == config->pcm && old->index == config->index)
            return card->streams[i];
    }
    return NULL;
}

static void sort_streams(struct xa_card *card)
{
    for (unsigned i = 1; i < card->stream_count; i++) {
        for (unsigned j = i; j > 0; j--) {
            const struct xa_stream_config *left = xa_stream_config(card->streams[j - 1]);
            const struct xa_stream_config *right = xa_stream_config(card->streams[j]);
            struct xa_stream *moved = card->streams[j];

            if (left->pcm * 256 + left->index <= right->pcm * 256 + right->index)
                break;
            card->streams[j] = card->streams[j - 1];
            card->streams[j - 1] = moved;
        }
    }
}

static void config_is_read(struct xa_card *card)
{
    struct reader *reader = card->reader;

    for (unsigned i = 0; i < card->stream_count; i++)
        xa_stream_configure(card->streams[i], NULL);
    for (unsigned i = 0; i < reader->count; i++) {
        struct xa_stream *stream = stream_at(card, &reader->found[i]);

        if (!stream && card->stream_count == XA_CARD_STREAMS) {
            config_fails(card, "the card has had more than 64 streams");
            return;
        }
        if (!stream) {
            stream = xa_stream_new(card->hv, card->callbacks.stream, card->user);
            if (!stream) {
                config_fails(card, "out of memory");
                return;
            }
            card->streams[card->stream_count++] = stream;
        }
        xa_stream_configure(stream, &reader->found[i]);
    }
    sort_streams(card);
    if (reader->count == 0) {
        reader->level = LEVEL_CARD;
        config_fails(card, "the card has no stream");
        return;
    }
    free(reader);
    card->reader = NULL;
    card->look_backend = true;
}

/* Goes on with the reading: the rest of this level's nodes, then what is below it, then the next.
 */
static void read_next(struct xa_card *card)
{
    struct reader *reader = card->reader;
    char path[PATH_OCTETS];
    const char *node = reader->node == SIZE_MAX ? NULL : node_name(reader);

    if (node) {
        level_path(card, path, sizeof(path), node);
        read_node(card, path, on_node);
        return;
    }
    if (reader->level == LEVEL_STREAM) {
        stream_is_read(card);
        return;
    }
    if (reader->node != SIZE_MAX) {
        reader->node = SIZE_MAX;
        level_path(card, path, sizeof(path), "");
        requested(card, xa_store_directory(card->store, 0, path, on_directory, card));
        return;
    }
    if (reader->level == LEVEL_PCM && reader->streams) {
        reader->stream = (unsigned) __builtin_ctz(reader->streams);
        reader->streams &= reader->streams - 1;
        reader->level = LEVEL_STREAM;
        reader->node = 0;
        reader->inherited[LEVEL_STREAM] = reader->inherited[LEVEL_PCM];
        memset(&reader->config, 0, sizeof(reader->config));
        reader->has_type = false;
        read_next(card);
        return;
    }
    if (reader->pcms) {
        reader->pcm = (unsigned) __builtin_ctz(reader->pcms);
        reader->pcms &= reader->pcms - 1;
        reader->level = LEVEL_PCM;
        reader->node = 0;
        reader->inherited[LEVEL_PCM] = reader->inherited[LEVEL_CARD];
        reader->pcm_name[0] = '\0';
        read_next(card);
        return;
    }
    config_is_read(card);
}

static void read_config(struct xa_card *card)
{
    free(card->reader);
    card->reader = calloc(1, sizeof(*card->reader));
    if (!card->reader) {
        fail(card, -ENOMEM, "out of memory");
        return;
    }
    card->short_name[0] = '\0';
    card->long_name[0] = '\0';
    xa_pcm_config_default(&card->reader->inherited[LEVEL_CARD]);
    read_next(card);
}

/* ---- The backend's state ---- */

static void on_backend_state(void *user, int error, const char *data, size_t length)
{
    struct xa_card *card = user;

    (void) length;
    if (reply_lost(card, error))
        return;
    card->backend_state = error < 0 ? 0 : state_of(data);
}

static void read_backend(struct xa_card *card)
{
    char path[PATH_OCTETS];

    snprintf(path, sizeof(path), "%s/state", card->backend);
    read_node(card, path, on_backend_state);
}

/* ---- Our own state ---- */

static void enter(struct xa_card *card);

static void on_state_written(void *user, int error, const char *data, size_t length)
{
    struct xa_card *card = user;

    (void) data;
    (void) length;
    if (reply_lost(card, error))
        return;
    if (error < 0) {
        /* EACCES also when the device was detached: a guest cannot make the node itself. The watch
         * tells. */
        fail(card, error, "%s/state cannot be written: %s", card->base, strerror(-error));
        return;
    }
    card->own = card->next_own;
    enter(card);
}

static void write_state(struct xa_card *card, int state)
{
    char path[PATH_OCTETS], value[8];

    card->next_own = state;
    snprintf(path, sizeof(path), "%s/state", card->base);
    snprintf(value, sizeof(value), "%d", state);
    requested(card, xa_store_write(card->store, 0, path, value, on_state_written, card));
}

/* What follows once the store has our new state. */
static void enter(struct xa_card *card)
{
    card->deadline_us = UINT64_MAX;
    switch (card->own) {
    case XenbusStateInitialising:
        card->phase = PHASE_WAIT;
        break;
    case XenbusStateInitialised:
        card->phase = PHASE_PUBLISHED;
        card->deadline_us = card->now + NEGOTIATE_LIMIT_US;
        break;
    case XenbusStateConnected:
        card->phase = PHASE_CONNECTED;
        for (unsigned i = 0; i < card->stream_count; i++) {
            if (xa_stream_is_configured(card->streams[i]))
                xa_stream_online(card->streams[i], card->version);
        }
        set_state(card, XA_CARD_CONNECTED, 0, "%s", "");
        break;
    case XenbusStateClosing:
        card->phase = PHASE_CLOSING;
        card->deadline_us = card->now + CLOSE_LIMIT_US;
        break;
    default: /* XenbusStateClosed */
        card->phase = PHASE_CLOSED;
        card->deadline_us = card->now + CLOSE_LIMIT_US;
        break;
    }
}

/* Ends the connection in order; a new one follows unless the owner wants none. */
static void begin_close(struct xa_card *card, int reason, const char *text)
{
    /* The pages stay granted until the backend has answered; the owners are told now. */
    stop_streams(card);
    if (card->state != XA_CARD_CLOSING)
        set_state(card, XA_CARD_CLOSING, reason, "%s", text);
    write_state(card, XenbusStateClosing);
}

/* ---- Publishing ---- */

static void transaction_start(struct xa_card *card);

static void on_published(void *user, int error, const char *data, size_t length)
{
    struct xa_card *card = user;

    (void) data;
    (void) length;
    if (reply_lost(card, error))
        return;
    if (error == -EAGAIN) {
        transaction_start(card);
        return;
    }
    if (card->publish_error == 0)
        card->publish_error = error;
    if (card->publish_error < 0) {
        fail(card, card->publish_error, "the nodes of %s cannot be written: %s", card->base,
             strerror(-card->publish_error));
    } else {
        write_state(card, XenbusStateInitialised);
    }
}

static void on_written(void *user, int error, const char *data, size_t length)
{
    struct xa_card *card = user;

    (void) data;
    (void) length;
    if (error < 0 && card->publish_error == 0)
        card->publish_error = error;
}

static int publish_number(struct xa_card *card, const struct xa_stream_config *config,
                          const char *node, uint32_t number)
{
    char path[PATH_OCTETS], value[16];

    snprintf(path, sizeof(path), "%s/%u/%u/%s", card->base, config->pcm, config->index, node);
    snprintf(value, sizeof(value), "%" PRIu32, number);
    return xa_store_write(card->store, card->tx, path, value, on_written, card);
}

static void on_transaction(void *user, int error, const char *data, size_t length)
{
    struct xa_card *card = user;
    char path[PATH_OCTETS], value[8];
    uint64_t tx;

    (void) length;
    if (reply_lost(card, error))
        return;
    if (error < 0 || xa_config_number(data, UINT32_MAX, &tx) < 0) {
        fail(card, error < 0 ? error : -EPROTO, "the store begins no transaction");
        return;
    }
    card->tx = (uint32_t) tx;
    card->publish_error = 0;
    snprintf(path, sizeof(path), "%s/%s", card->base, XENSND_FIELD_FE_VERSION);
    snprintf(value, sizeof(value), "%u", card->version);
    error = xa_store_write(card->store, card->tx, path, value, on_written, card);
    snprintf(path, sizeof(path), "%s/%s", card->base, XA_CARD_FEATURE_RENEGOTIATE);
    if (error == 0)
        error = xa_store_write(card->store, card->tx, path, "1", on_written, card);
    snprintf(path, sizeof(path), "%s/%s", card->base, XA_CARD_FEATURE_HOLD_OFF);
    if (error == 0)
        error = xa_store_write(card->store, card->tx, path, "1", on_written, card);
    for (unsigned i = 0; i < card->stream_count && error == 0; i++) {
        const struct xa_stream_config *config = xa_stream_config(card->streams[i]);
        const struct xa_stream_transport *transport = &card->transport[i];

        if (!xa_stream_is_configured(card->streams[i]))
            continue;
        error = publish_number(card, config, XENSND_FIELD_RING_REF, transport->ring_ref);
        if (error == 0)
            error = publish_number(card, config, XENSND_FIELD_EVT_CHNL, transport->event_channel);
        if (error == 0)
            error =
                publish_number(card, config, XENSND_FIELD_EVT_RING_REF, transport->evt_ring_ref);
        if (error == 0)
            error = publish_number(card, config, XENSND_FIELD_EVT_EVT_CHNL,
                                   transport->evt_event_channel);
    }
    if (error < 0)
        card->publish_error = error;
    requested(card,
              xa_store_transaction_end(card->store, card->tx, error == 0, on_published, card));
}

static void transaction_start(struct xa_card *card)
{
    requested(card, xa_store_transaction_start(card->store, on_transaction, card));
}

/* The best protocol version of a list, 0: none that we know. */
static unsigned best_version(const char *list)
{
    unsigned best = 0;

    while (*list) {
        size_t length = strcspn(list, XENSND_LIST_SEPARATOR);

        if (length == 1 && (*list == '1' || *list == '2') && (unsigned) (*list - '0') > best)
            best = (unsigned) (*list - '0');
        list += length + (list[length] != '\0');
    }
    return best;
}

static void on_versions(void *user, int error, const char *data, size_t length)
{
    struct xa_card *card = user;

    (void) length;
    if (reply_lost(card, error))
        return;
    /* libxl does not write the node, and a backend need not: then it speaks what sndif.h is. */
    card->version = error < 0 ? XENSND_PROTOCOL_VERSION : best_version(data);
    if (card->version == 0) {
        fail(card, -EPROTONOSUPPORT, "the backend speaks none of sndif's versions 1 and 2");
        return;
    }
    for (unsigned i = 0; i < card->stream_count; i++) {
        if (!xa_stream_is_configured(card->streams[i]))
            continue;
        card->fds_serial++;
        error = xa_stream_prepare(card->streams[i], card->backend_id, &card->transport[i]);
        if (error < 0) {
            fail(card, error, "rings and event channels cannot be made: %s", strerror(-error));
            return;
        }
    }
    transaction_start(card);
}

static void negotiate(struct xa_card *card)
{
    char path[PATH_OCTETS];

    set_state(card, XA_CARD_NEGOTIATING, 0, "%s", "");
    snprintf(path, sizeof(path), "%s/%s", card->backend, XENSND_FIELD_BE_VERSIONS);
    read_node(card, path, on_versions);
}

/* ---- Decisions ---- */

static bool overdue(const struct xa_card *card)
{
    return card->now >= card->deadline_us;
}

static void decide_waiting(struct xa_card *card)
{
    if (card->want_close) {
        go_idle(card, XA_CARD_CLOSED, 0, "");
        return;
    }
    if (card->now < card->not_before_us) {
        card->deadline_us = card->not_before_us;
        return;
    }
    card->deadline_us = UINT64_MAX;
    if (card->backend_state == XenbusStateInitWait)
        negotiate(card);
    else if (card->backend_state == XenbusStateUnknown)
        set_state(card, XA_CARD_WAITING, -ENOTCONN, "there is no backend in domain %u",
                  card->backend_id);
    else
        set_state(card, XA_CARD_WAITING, -ENOTCONN,
                  "no backend is ready in domain %u (its state is %d, 2 is wanted)",
                  card->backend_id, card->backend_state);
}

/* In a negotiation or connected: what the backend's state asks for. */
static void decide_connection(struct xa_card *card)
{
    bool connected = card->phase == PHASE_CONNECTED;

    if (card->want_close || card->want_reconnect) {
        begin_close(card, 0, card->want_close ? "closing" : "reconnecting");
        return;
    }
    switch (card->backend_state) {
    case XenbusStateConnected:
        if (!connected)
            write_state(card, XenbusStateConnected);
        return;
    case XenbusStateClosing:
    case XenbusStateClosed:
        begin_close(card, -ESHUTDOWN, "the backend has closed the card");
        return;
    case XenbusStateInitWait:
        if (!connected)
            break; /* it has not looked yet */
        /* fall through */
    case XenbusStateUnknown:
    case XenbusStateInitialising:
        /* Its end of the rings is gone, there is nobody to close them with. */
        release_streams(card);
        set_state(card, XA_CARD_WAITING, -ECONNRESET, "the backend has %s",
                  card->backend_state == XenbusStateUnknown ? "gone" : "started anew");
        write_state(card, XenbusStateInitialising);
        return;
    default:
        break;
    }
    if (!connected && overdue(card))
        begin_close(card, -ETIMEDOUT, "the backend does not connect");
}

static void decide_closing(struct xa_card *card)
{
    switch (card->backend_state) {
    case XenbusStateUnknown:
    case XenbusStateInitialising:
    case XenbusStateInitWait:
    case XenbusStateClosing:
    case XenbusStateClosed:
        break;
    default:
        if (!overdue(card))
            return;
    }
    release_streams(card);
    write_state(card, XenbusStateClosed);
}

static void decide_closed(struct xa_card *card)
{
    switch (card->backend_state) {
    case XenbusStateUnknown:
    case XenbusStateInitialising:
    case XenbusStateInitWait:
    case XenbusStateClosed:
        break;
    default:
        if (!overdue(card))
            return;
    }
    card->want_reconnect = false;
    if (card->want_close) {
        go_idle(card, XA_CARD_CLOSED, 0, "");
        return;
    }
    write_state(card, XenbusStateInitialising);
}

static void decide(struct xa_card *card)
{
    switch (card->phase) {
    case PHASE_START:
        /* The configuration is known, and in which state we have found ourselves. */
        if (card->own < 0)
            return;
        if (card->own == XenbusStateInitialising) {
            card->phase = PHASE_WAIT;
            decide_waiting(card);
        } else if (card->own == XenbusStateClosed) {
            card->phase = PHASE_CLOSED;
            card->deadline_us = card->now + CLOSE_LIMIT_US;
            decide_closed(card);
        } else {
            begin_close(card, 0, "an earlier connection is closed first");
        }
        break;
    case PHASE_IDLE:
        if (card->want_close && card->state != XA_CARD_CLOSED)
            go_idle(card, XA_CARD_CLOSED, 0, "");
        else if (card->state == XA_CARD_FAILED && overdue(card))
            restart(card);
        break;
    case PHASE_WAIT:
        card->want_reconnect = false;
        decide_waiting(card);
        break;
    case PHASE_PUBLISHED:
    case PHASE_CONNECTED:
        decide_connection(card);
        break;
    case PHASE_CLOSING:
        decide_closing(card);
        break;
    case PHASE_CLOSED:
        decide_closed(card);
        break;
    }
}

/* Takes steps until one waits for the store, or there is none to take. */
static void advance(struct xa_card *card)
{
    char path[PATH_OCTETS];

    while (card->store && !card->busy && !card->store_broken && card->state != XA_CARD_CLOSED) {
        if (card->look_device) {
            card->look_device = false;
            snprintf(path, sizeof(path), "%s/state", card->base);
            read_node(card, path, on_own_state);
        } else if (card->look_config) {
            card->look_config = false;
            read_config(card);
        } else if (card->look_backend && card->backend[0] != '\0') {
            card->look_backend = false;
            read_backend(card);
        } else {
            enum phase before = card->phase;

            decide(card);
            if (card->phase == before)
                return;
        }
    }
}

static void on_watch(void *user, const char *path, const char *token)
{
    struct xa_card *card = user;

    (void) path;
    /* The device is looked at first in any case: in a restored domain both have changed, and what
     * the backend's state calls for depends on whether the device is still the same. */
    card->look_device = true;
    if (strcmp(token, TOKEN_BACKEND) == 0)
        card->look_backend = true;
}

/* ---- The connection to the store ---- */

static void drop_store(struct xa_card *card)
{
    xa_store_free(card->store);
    card->store = NULL;
    card->fds_serial++;
    card->busy = false;
    card->store_broken = false;
    card->watch_error = 0;
    free(card->reader);
    card->reader = NULL;
}

/* `fd`: of a new connection, or why there is none. */
static void use_store(struct xa_card *card, int fd)
{
    card->store_retry_us = card->now + STORE_RETRY_US;
    if (fd < 0) {
        set_state(card, XA_CARD_ABSENT, fd, "the store of %s cannot be reached: %s",
                  xa_hv_address(card->hv), strerror(-fd));
        return;
    }
    card->store = xa_store_new(fd, on_watch, card);
    if (!card->store) {
        int error = errno;

        close(fd);
        set_state(card, XA_CARD_ABSENT, -error, "the store of %s cannot be used: %s",
                  xa_hv_address(card->hv), strerror(error));
        return;
    }
    card->fds_serial++;
    card->backend[0] = '\0';
    card->backend_state = 0;
    card->look_config = card->look_backend = false;
    card->config_refused = false;
    restart(card);
    watch(card, card->base, TOKEN_DEVICE);
}

static void connect_store(struct xa_card *card)
{
    if (!card->callbacks.connect) {
        use_store(card, xa_hv_connect_store(card->hv));
        return;
    }
    card->connecting = true;
    card->callbacks.connect(card->user);
}

/* What the owner handed over is used, if it is still wanted. */
static void use_handed_over(struct xa_card *card)
{
    card->handed_over = card->connecting = false;
    if (card->state != XA_CARD_CLOSED)
        use_store(card, card->handed_fd);
    else if (card->handed_fd >= 0)
        close(card->handed_fd);
}

/* While the card is connected, and is to stay so, the answer only comes later. */
static bool answer_matters(const struct xa_card *card)
{
    return card->store && card->busy &&
           (card->phase != PHASE_CONNECTED || card->want_close || card->want_reconnect);
}

static void store_lost(struct xa_card *card, int error, const char *what)
{
    drop_store(card);
    release_streams(card);
    card->phase = PHASE_START;
    card->own = -1;
    card->deadline_us = UINT64_MAX;
    set_state(card, card->want_close ? XA_CARD_CLOSED : XA_CARD_ABSENT, error, "%s: %s", what,
              strerror(-error));
}

/* ---- For the owner ---- */

int xa_card_new(struct xa_hv *hv, unsigned device, const struct xa_card_callbacks *callbacks,
                void *user, struct xa_card **card)
{
    struct xa_card *new = calloc(1, sizeof(*new));

    if (!new)
        return -ENOMEM;
    new->hv = hv;
    new->callbacks = *callbacks;
    new->user = user;
    new->deadline_us = UINT64_MAX;
    new->own = -1;
    snprintf(new->base, sizeof(new->base), "device/%s/%u", XENSND_DRIVER_NAME, device);
    *card = new;
    return 0;
}

void xa_card_free(struct xa_card *card)
{
    if (!card)
        return;
    card->callbacks.card = NULL;
    if (card->store)
        drop_store(card);
    if (card->handed_over && card->handed_fd >= 0)
        close(card->handed_fd);
    for (unsigned i = 0; i < card->stream_count; i++)
        xa_stream_free(card->streams[i]);
    free(card);
}

void xa_card_take_store(struct xa_card *card, int fd)
{
    card->handed_over = true;
    card->handed_fd = fd;
}

void xa_card_close(struct xa_card *card)
{
    card->want_close = true;
}

void xa_card_reconnect(struct xa_card *card)
{
    card->want_reconnect = true;
}

enum xa_card_state xa_card_state(const struct xa_card *card)
{
    return card->state;
}

const char *xa_card_reason(const struct xa_card *card)
{
    return card->reason;
}

int xa_card_error(const struct xa_card *card)
{
    return card->error;
}

const char *xa_card_short_name(const struct xa_card *card)
{
    return card->short_name;
}

const char *xa_card_long_name(const struct xa_card *card)
{
    return card->long_name;
}

unsigned xa_card_stream_count(const struct xa_card *card)
{
    return card->stream_count;
}

struct xa_stream *xa_card_stream(const struct xa_card *card, unsigned index)
{
    return index < card->stream_count ? card->streams[index] : NULL;
}

unsigned xa_card_version(const struct xa_card *card)
{
    return card->phase == PHASE_CONNECTED ? card->version : 0;
}

unsigned xa_card_fds(const struct xa_card *card, int *fds, short *events)
{
    unsigned count = 0;

    if (card->store) {
        fds[count] = xa_store_fd(card->store);
        events[count++] = xa_store_wants_write(card->store) ? POLLIN | POLLOUT : POLLIN;
    }
    for (unsigned i = 0; i < card->stream_count; i++) {
        int fd = xa_stream_fd(card->streams[i]);

        if (fd < 0)
            continue;
        fds[count] = fd;
        events[count++] = POLLIN;
    }
    return count;
}

unsigned xa_card_fds_serial(const struct xa_card *card)
{
    return card->fds_serial;
}

/* Whether decide() would act at once on what the owner wants; while the store owes an answer, that
 * comes first. */
static bool wants_decision(const struct xa_card *card)
{
    if (card->state == XA_CARD_CLOSED || card->busy)
        return false;
    if (!card->store)
        return card->want_close;
    switch (card->phase) {
    case PHASE_IDLE:
    case PHASE_WAIT:
        return card->want_close;
    case PHASE_PUBLISHED:
    case PHASE_CONNECTED:
        return card->want_close || card->want_reconnect;
    default:
        return false;
    }
}

uint64_t xa_card_deadline(const struct xa_card *card)
{
    uint64_t deadline = card->deadline_us;

    if (card->store_broken || card->watch_error != 0 || card->handed_over || wants_decision(card))
        return 0;
    if (!card->store)
        return card->state == XA_CARD_CLOSED || card->connecting ? UINT64_MAX
                                                                 : card->store_retry_us;
    if (answer_matters(card) && card->answer_us < deadline)
        deadline = card->answer_us;
    for (unsigned i = 0; i < card->stream_count; i++) {
        uint64_t of_stream = xa_stream_deadline(card->streams[i]);

        if (of_stream < deadline)
            deadline = of_stream;
    }
    return deadline;
}

/* Which file descriptors are ready is asked once, so that those that are not cost no call each. */
static unsigned poll_ready(struct xa_card *card, struct pollfd *polls)
{
    int fds[XA_CARD_FDS];
    short events[XA_CARD_FDS];
    unsigned count = xa_card_fds(card, fds, events);

    for (unsigned i = 0; i < count; i++)
        polls[i] = (struct pollfd){.fd = fds[i], .events = events[i]};
    if (poll(polls, count, 0) < 0) {
        /* Nothing is known: everything is looked at. */
        for (unsigned i = 0; i < count; i++)
            polls[i].revents = POLLIN;
    }
    return count;
}

static bool is_ready(const struct pollfd *polls, unsigned count, int fd)
{
    for (unsigned i = 0; i < count; i++) {
        if (polls[i].fd == fd)
            return polls[i].revents != 0;
    }
    return false;
}

static void process_streams(struct xa_card *card, const struct pollfd *polls, unsigned count)
{
    for (unsigned i = 0; i < card->stream_count; i++) {
        struct xa_stream *stream = card->streams[i];
        int fd = xa_stream_fd(stream);

        if (fd < 0 || xa_stream_process(stream, is_ready(polls, count, fd), card->now) == 0)
            continue;
        card->not_before_us = card->now + BROKEN_PAUSE_US;
        release_streams(card);
        set_state(card, XA_CARD_CLOSING, -EPROTO, "the backend broke the protocol: %s",
                  xa_stream_fault(stream));
        card->want_reconnect = true;
        return;
    }
}

void xa_card_process(struct xa_card *card, uint64_t now_us)
{
    struct pollfd polls[XA_CARD_FDS];
    unsigned count = poll_ready(card, polls);

    xa_card_process_polled(card, polls, count, now_us);
}

void xa_card_process_polled(struct xa_card *card, const struct pollfd *polls, unsigned count,
                            uint64_t now_us)
{
    int error = 0;

    card->now = now_us;
    if (!card->store && card->want_close && card->state != XA_CARD_CLOSED)
        set_state(card, XA_CARD_CLOSED, 0, "%s", "");
    if (card->handed_over)
        use_handed_over(card);
    else if (!card->store && !card->connecting && card->state != XA_CARD_CLOSED &&
             now_us >= card->store_retry_us)
        connect_store(card);
    process_streams(card, polls, count);
    if (card->store && is_ready(polls, count, xa_store_fd(card->store))) {
        error = xa_store_process(card->store);
        if (error < 0)
            store_lost(card, error, "the connection to the store was lost");
    }
    advance(card);
    if (card->store_broken)
        store_lost(card, -EPIPE, "the connection to the store was lost");
    else if (card->watch_error != 0)
        store_lost(card, card->watch_error, "the store refused a watch");
    else if (answer_matters(card) && now_us >= card->answer_us)
        store_lost(card, -ETIMEDOUT, "the store does not answer");
}
