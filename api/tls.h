/* TLS for the transport: the certificate of new connections, from files that may change while the
 * server runs. GnuTLS is known to tls.c alone. One server in a process has it. */
#ifndef API_TLS_H
#define API_TLS_H

#include "core/err.h"

/* TLS 1.2 and 1.3; what GnuTLS calls a priority string. */
#define TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

/* Reads both files, PEM; the paths are borrowed. OVR_INVALID says what is wrong with them. */
int tls_open(const char *certificate, const char *key, struct ovr_err *err);
void tls_close(void); /* once no connection is left; fine without tls_open() */

/* The callback that chooses the certificate, for MHD_OPTION_HTTPS_CERT_CALLBACK. */
void *tls_callback(void);

/* Reads the files again; after a fault the old ones stay. */
int tls_reload(struct ovr_err *err);

/* 1 if they look other than when they were last read, also in vain. */
int tls_changed(void);

#endif
