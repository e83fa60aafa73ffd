/* Time that passes, for waiting and for how long something took. */
#ifndef CLI_CLOCK_H
#define CLI_CLOCK_H

double now(void); /* seconds since some start */
void pause_ms(int ms);

#endif
