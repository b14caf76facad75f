/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Values of a card's configuration nodes; see config.h. */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "sndif/format.h"
#include "sndif/xen.h"

#define DEFAULT_CHANNELS_MAX 2
#define DEFAULT_BUFFER (64u * 1024)

/* Our backend's, for a card without "sample-rates", so that what it will refuse is refused here. */
static const uint32_t default_rates[] = {5512,  8000,  11025, 12000, 16000, 22050,  24000, 32000,
                                         44100, 48000, 64000, 88200, 96000, 176400, 192000};
_Static_assert(sizeof(default_rates) <= sizeof(((struct xa_pcm_config *) 0)->rates),
               "the default rates must fit");

void xa_pcm_config_default(struct xa_pcm_config *config)
{
    memset(config, 0, sizeof(*config));
    config->channels_min = 1;
    config->channels_max = DEFAULT_CHANNELS_MAX;
    config->rate_count = sizeof(default_rates) / sizeof(default_rates[0]);
    memcpy(config->rates, default_rates, sizeof(default_rates));
    config->formats = xa_format_all_mask();
    config->buffer_max = DEFAULT_BUFFER;
}

static int number_of(const char *value, size_t length, uint64_t max, uint64_t *number)
{
    uint64_t sum = 0;

    if (length == 0 || length > 19)
        return -EINVAL;
    for (size_t i = 0; i < length; i++) {
        if (value[i] < '0' || value[i] > '9')
            return -EINVAL;
        sum = sum * 10 + (uint64_t) (value[i] - '0');
    }
    if (sum > max)
        return -EINVAL;
    *number = sum;
    return 0;
}

int xa_config_number(const char *value, uint64_t max, uint64_t *number)
{
    return number_of(value, strlen(value), max, number);
}

/* The next item of a list, without the blanks around it; false at the list's end. */
static bool next_item(const char **list, const char **item, size_t *length)
{
    const char *start = *list;
    const char *end;

    if (!start)
        return false;
    end = start + strcspn(start, XENSND_LIST_SEPARATOR);
    *list = *end ? end + 1 : NULL;
    while (start < end && *start == ' ')
        start++;
    while (end > start && end[-1] == ' ')
        end--;
    *item = start;
    *length = (size_t) (end - start);
    return true;
}

static int set_rates(struct xa_pcm_config *config, const char *list)
{
    uint32_t rates[XA_CARD_RATES] = {0};
    uint32_t count = 0;
    const char *item;
    size_t length;

    while (next_item(&list, &item, &length)) {
        uint64_t rate;

        if (number_of(item, length, XA_CARD_RATE_MAX, &rate) < 0 || rate == 0)
            return -EINVAL;
        if (count == XA_CARD_RATES)
            return -E2BIG;
        rates[count++] = (uint32_t) rate;
    }
    memcpy(config->rates, rates, count * sizeof(rates[0]));
    config->rate_count = count;
    return 0;
}

static int set_formats(struct xa_pcm_config *config, const char *list)
{
    uint64_t formats = 0;
    const char *item;
    size_t length;

    while (next_item(&list, &item, &length)) {
        const struct xa_format *format = xa_format_by_name(item, length);

        if (format)
            formats |= UINT64_C(1) << format->code;
    }
    if (formats == 0)
        return -EINVAL;
    config->formats = formats;
    return 0;
}

int xa_pcm_config_set(struct xa_pcm_config *config, const char *node, const char *value)
{
    uint64_t number;

    if (strcmp(node, XENSND_FIELD_SAMPLE_RATES) == 0)
        return set_rates(config, value);
    if (strcmp(node, XENSND_FIELD_SAMPLE_FORMATS) == 0)
        return set_formats(config, value);
    if (strcmp(node, XENSND_FIELD_CHANNELS_MIN) == 0) {
        if (xa_config_number(value, UINT8_MAX, &number) < 0 || number == 0)
            return -EINVAL;
        config->channels_min = (uint8_t) number;
        return 0;
    }
    if (strcmp(node, XENSND_FIELD_CHANNELS_MAX) == 0) {
        if (xa_config_number(value, UINT8_MAX, &number) < 0 || number == 0)
            return -EINVAL;
        config->channels_max = (uint8_t) number;
        return 0;
    }
    if (strcmp(node, XENSND_FIELD_BUFFER_SIZE) == 0) {
        if (xa_config_number(value, UINT32_MAX, &number) < 0 || number == 0)
            return -EINVAL;
        config->buffer_max = (uint32_t) number;
        return 0;
    }
    return -ENOENT;
}

bool xa_pcm_config_valid(const struct xa_pcm_config *config)
{
    return config->channels_min >= 1 && config->channels_min <= config->channels_max;
}

bool xa_pcm_config_allows(const struct xa_pcm_config *config, uint32_t rate, uint8_t format,
                          uint8_t channels)
{
    bool rate_allowed = false;

    for (uint32_t i = 0; i < config->rate_count; i++)
        rate_allowed = rate_allowed || config->rates[i] == rate;
    return rate_allowed && format < 64 && (config->formats >> format & 1) != 0 &&
           channels >= config->channels_min && channels <= config->channels_max;
}
