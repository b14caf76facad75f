/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The layout check: a program that the build runs, and that fails unless the installed libpulsecore
 * lays out its structures as the headers say that the modules are compiled with. Those structures
 * are PulseAudio's private matter and change between versions; a module that is wrong about them
 * corrupts the daemon's memory.
 *
 * No table of sizes or offsets is kept. The installed library is asked:
 *   - for the size of what it allocates, by standing between it and its allocator;
 *   - for the size of what its callers allocate, by the octets that its initialisers overwrite;
 *   - for members, by giving it a sink, a source, a card and callbacks of the kind that the modules
 *     make, and looking where it reads and writes what, or what it tells clients of them.
 *
 * Prints a table of the sizes. Exit status 0: all fits; 1: something does not, which is named on
 * standard error; 2: the check cannot be made here. It is its own process, so that a library that
 * crashes over a wrong layout is a finding too.
 */
#include "config.h"

#include <ltdl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <pulse/mainloop.h>
#include <pulse/version.h>
#include <pulse/xmalloc.h>
#include <pulsecore/core.h>
#include <pulsecore/card.h>
#include <pulsecore/device-port.h>
#include <pulsecore/memchunk.h>
#include <pulsecore/module.h>
#include <pulsecore/namereg.h>
#include <pulsecore/sink.h>
#include <pulsecore/source.h>
#include <pulsecore/thread-mq.h>

#include "layout.h"

#define SINK_MODULE "module-null-sink"
#define SINK_NAME "xenaudio_layout"

static unsigned misfits;

/* What the library allocated: enough for all that one run makes; nothing is taken out, and the
 * newest entry for an address counts. */
static struct {
    const void *memory;
    size_t size;
} allocations[1 << 16];
static size_t allocation_count;
static pthread_mutex_t allocations_lock = PTHREAD_MUTEX_INITIALIZER;

static void *noted(void *memory, size_t size)
{
    if (memory == NULL) {
        abort();
    }
    pthread_mutex_lock(&allocations_lock);
    if (allocation_count < sizeof allocations / sizeof *allocations) {
        allocations[allocation_count].memory = memory;
        allocations[allocation_count++].size = size;
    }
    pthread_mutex_unlock(&allocations_lock);
    return memory;
}

/* These two come before libpulse's own, in libpulsecore as well: the program's names win. */
void *pa_xmalloc(size_t l)
{
    return noted(malloc(l), l);
}

void *pa_xmalloc0(size_t l)
{
    return noted(calloc(1, l), l);
}

size_t xa_layout_allocated(const void *memory)
{
    size_t size = 0;

    pthread_mutex_lock(&allocations_lock);
    for (size_t i = allocation_count; i > 0 && size == 0; i--) {
        if (allocations[i - 1].memory == memory) {
            size = allocations[i - 1].size;
        }
    }
    pthread_mutex_unlock(&allocations_lock);
    return size;
}

static max_align_t room[512];
#define ROOM_FILL 0xa5

void *xa_layout_room(void)
{
    memset(room, ROOM_FILL, sizeof room);
    return room;
}

size_t xa_layout_written(const void *data)
{
    const unsigned char *octets = data;
    size_t size = sizeof room;

    while (size > 0 && octets[size - 1] == ROOM_FILL) {
        size--;
    }
    return size;
}

void xa_layout_size(const char *type, size_t header, size_t library)
{
    printf("%-24s %6zu octets\n", type, library);
    if (header != library) {
        misfits++;
        fprintf(stderr, "layout: %s is %zu octets in the installed library, %zu in the headers\n",
                type, library, header);
    }
}

void xa_layout_member(const char *type, const char *member, size_t offset, bool held)
{
    if (held) {
        return;
    }
    __atomic_add_fetch(&misfits, 1, __ATOMIC_RELAXED);
    if (member != NULL) {
        fprintf(stderr, "layout: %s.%s is not at offset %zu in the installed library\n", type,
                member, offset);
    } else {
        fprintf(stderr, "layout: %s: the installed library takes it otherwise\n", type);
    }
}

/* Nothing here needs a member of a structure, so that it is safe with whatever headers. */
static void check_sizes(pa_core *core)
{
    void *data;
    pa_device_port *port;

    xa_layout_size("pa_core", sizeof(pa_core), xa_layout_allocated(core));
    xa_layout_size("pa_sink", sizeof(pa_sink),
                   xa_layout_allocated(pa_namereg_get(core, SINK_NAME, PA_NAMEREG_SINK)));
    xa_layout_size(
        "pa_source", sizeof(pa_source),
        xa_layout_allocated(pa_namereg_get(core, SINK_NAME ".monitor", PA_NAMEREG_SOURCE)));

    data = pa_sink_new_data_init(xa_layout_room());
    xa_layout_size("pa_sink_new_data", sizeof(pa_sink_new_data), xa_layout_written(data));
    pa_sink_new_data_done(data);
    data = pa_source_new_data_init(xa_layout_room());
    xa_layout_size("pa_source_new_data", sizeof(pa_source_new_data), xa_layout_written(data));
    pa_source_new_data_done(data);
    data = pa_card_new_data_init(xa_layout_room());
    xa_layout_size("pa_card_new_data", sizeof(pa_card_new_data), xa_layout_written(data));
    pa_card_new_data_done(data);

    data = pa_card_profile_new("profile", "profile", 0);
    xa_layout_size("pa_card_profile", sizeof(pa_card_profile), xa_layout_allocated(data));
    pa_card_profile_free(data);

    data = pa_device_port_new_data_init(xa_layout_room());
    xa_layout_size("pa_device_port_new_data", sizeof(pa_device_port_new_data),
                   xa_layout_written(data));
    pa_device_port_new_data_set_name(data, "port");
    pa_device_port_new_data_set_description(data, "port");
    pa_device_port_new_data_set_direction(data, PA_DIRECTION_OUTPUT);
    port = pa_device_port_new(core, data, 0);
    xa_layout_size("pa_device_port", sizeof(pa_device_port), xa_layout_allocated(port));
    pa_object_unref((pa_object *) port);
    pa_device_port_new_data_done(data);

    data = xa_layout_room();
    pa_memchunk_reset(data);
    xa_layout_size("pa_memchunk", sizeof(pa_memchunk), xa_layout_written(data));
}

static void check_thread_mq_size(pa_mainloop_api *mainloop)
{
    pa_rtpoll *rtpoll = pa_rtpoll_new();
    void *data = xa_layout_room();

    if (pa_thread_mq_init(data, mainloop, rtpoll) < 0) {
        fprintf(stderr, "layout: pa_thread_mq_init failed\n");
        exit(2);
    }
    xa_layout_size("pa_thread_mq", sizeof(pa_thread_mq), xa_layout_written(data));
    pa_thread_mq_done(data);
    pa_rtpoll_free(rtpoll);
}

static void stop_if_misfit(void)
{
    if (misfits == 0) {
        return;
    }
    fprintf(stderr,
            "layout: the headers of PulseAudio %s do not fit the installed libpulsecore %s: "
            "take those of its own source (ci/dist)\n",
            PACKAGE_VERSION, pa_get_library_version());
    /* What was made of wrong layouts cannot be taken apart. */
    fflush(NULL);
    _exit(1);
}

static void on_crash(int signal)
{
    static const char text[] =
        "layout: the installed libpulsecore crashes, or hangs, over what these headers say\n";

    (void) signal;
    (void) !write(STDERR_FILENO, text, sizeof text - 1);
    _exit(1);
}

int main(int argc, char **argv)
{
    static const int crashes[] = {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGALRM};
    pa_mainloop *mainloop;
    pa_core *core;
    pa_module *module = NULL;

    if (argc != 2) {
        fprintf(stderr, "usage: layout MODULE-FOLDER\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++) {
        signal(crashes[i], on_crash);
    }
    signal(SIGPIPE, SIG_IGN);
    alarm(60);

    mainloop = pa_mainloop_new();
    core = pa_core_new(pa_mainloop_get_api(mainloop), false, false, 0);
    if (core == NULL || lt_dlinit() != 0 || lt_dlsetsearchpath(argv[1]) != 0 ||
        pa_module_load(&module, core, SINK_MODULE, "sink_name=" SINK_NAME) < 0) {
        fprintf(stderr, "layout: cannot load PulseAudio's %s from %s\n", SINK_MODULE, argv[1]);
        return 2;
    }
    xa_layout_size("pa_module", sizeof(pa_module), xa_layout_allocated(module));
    check_sizes(core);
    check_thread_mq_size(pa_mainloop_get_api(mainloop));
    stop_if_misfit();

    xa_layout_check_core(core, pa_mainloop_get_api(mainloop));
    xa_layout_check_module(core, module, SINK_MODULE, "sink_name=" SINK_NAME);
    stop_if_misfit();
    xa_layout_check_card(core, module);
    xa_layout_check_sink(core, module);
    xa_layout_check_source(core, module);
    xa_layout_check_clients(core, module, mainloop);
    stop_if_misfit();

    pa_module_unload_all(core);
    pa_core_unref(core);
    pa_mainloop_free(mainloop);
    lt_dlexit();
    return 0;
}
