/* Files that ovrctl writes. */
#ifndef CLI_FILE_H
#define CLI_FILE_H

#include <stdio.h>

/* A file that appears under its name only when it is whole. */
struct whole_file {
    const char *name;
    char *temporary;
    FILE *file;
};

/* Both say what went wrong and return an exit code. Write to whole->file in between. */
int whole_file_open(struct whole_file *whole, const char *name);
/* Keeps the file where code is EXIT_OK, else removes it. Returns the code to go on with. */
int whole_file_close(struct whole_file *whole, int code);

#endif
