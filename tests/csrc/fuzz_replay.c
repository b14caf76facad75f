/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Runs a fuzz target on files, so that its corpus is a test with any compiler: fuzz_replay FILE...
 */
#include "fuzz_input.h"

int main(int argc, char **argv)
{
    static uint8_t data[65536];

    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        uint8_t *exact;
        size_t octets;

        if (file == NULL) {
            perror(argv[i]);
            return 1;
        }
        octets = fread(data, 1, sizeof(data), file);
        fclose(file);
        exact = malloc(octets + 1); /* so that a sanitizer sees a read past the end */
        if (exact == NULL)
            return 1;
        memcpy(exact + 1, data, octets);
        LLVMFuzzerTestOneInput(exact + 1, octets);
        free(exact);
    }
    printf("%d inputs\n", argc - 1);
    return argc > 1 ? 0 : 1;
}
