#include "clients/cli/file.h"

#include "clients/cli/api.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int whole_file_open(struct whole_file *whole, const char *name) {
    *whole = (struct whole_file){.name = name};
    if (asprintf(&whole->temporary, "%s.XXXXXX", name) < 0) {
        whole->temporary = NULL;
        return api_complain_memory();
    }
    int fd = mkostemp(whole->temporary, O_CLOEXEC);
    /* mkostemp() makes it private; it gets the rights that any new file would get. */
    mode_t mask = umask(0);
    umask(mask);
    if (fd >= 0 && !fchmod(fd, 0666 & ~mask))
        whole->file = fdopen(fd, "w");
    if (whole->file)
        return EXIT_OK;
    int code = complain(EXIT_USAGE, "cannot write %s: %s", name, strerror(errno));
    if (fd >= 0) {
        unlink(whole->temporary);
        close(fd);
    }
    free(whole->temporary);
    return code;
}

int whole_file_close(struct whole_file *whole, int code) {
    bool failed = fflush(whole->file) || fsync(fileno(whole->file));
    int why = errno;
    if (fclose(whole->file) && !failed) {
        failed = true;
        why = errno;
    }
    if (!code && !failed && rename(whole->temporary, whole->name)) {
        failed = true;
        why = errno;
    }
    if (!code && failed)
        code = complain(EXIT_USAGE, "cannot write %s: %s", whole->name, strerror(why));
    if (code)
        unlink(whole->temporary);
    free(whole->temporary);
    return code;
}
