// SPDX-License-Identifier: Apache-2.0
/*
 * oci_time: RFC 3339 times, as configs and annotations have them. Knows the calendar. Must not
 * know the clock or the time zone of this machine.
 */
#include <errno.h>

#include "regfs/oci.h"

/* Days from 1970-01-01 in the Gregorian calendar, for years from 0 on. */
static int64_t days_from_civil(int64_t year, unsigned month, unsigned day)
{
	unsigned from_march = (month + 9) % 12;
	int64_t era, year_of_era, day_of_year;

	year -= month <= 2;
	era = (year >= 0 ? year : year - 399) / 400;
	year_of_era = year - era * 400;
	day_of_year = (153 * from_march + 2) / 5 + day - 1;
	return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 +
	       day_of_year - 719468;
}

static unsigned days_in_month(unsigned year, unsigned month)
{
	static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return days[month - 1] + (month == 2 && leap);
}

/* Exactly N digits. */
static bool take_digits(const char **str, unsigned n, unsigned *ret)
{
	unsigned value = 0;

	for (; n > 0; n--, (*str)++) {
		if (**str < '0' || **str > '9')
			return false;
		value = value * 10 + (unsigned)(**str - '0');
	}
	*ret = value;
	return true;
}

static bool take_byte(const char **str, char c)
{
	if (**str != c)
		return false;
	(*str)++;
	return true;
}

static bool take_date(const char **str, int64_t *ret_days)
{
	unsigned year, month, day;

	if (!take_digits(str, 4, &year) || !take_byte(str, '-') || !take_digits(str, 2, &month) ||
	    !take_byte(str, '-') || !take_digits(str, 2, &day))
		return false;
	if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month))
		return false;
	*ret_days = days_from_civil(year, month, day);
	return true;
}

/* A leap second (60) counts as the second after it. */
static bool take_clock(const char **str, unsigned *ret_sec)
{
	unsigned hour, minute, second;

	if (!take_digits(str, 2, &hour) || !take_byte(str, ':') || !take_digits(str, 2, &minute) ||
	    !take_byte(str, ':') || !take_digits(str, 2, &second))
		return false;
	if (hour > 23 || minute > 59 || second > 60)
		return false;
	*ret_sec = hour * 3600 + minute * 60 + second;
	return true;
}

/* ".123", of which nine digits count; nothing is 0. */
static bool take_fraction(const char **str, uint32_t *ret_nsec)
{
	uint32_t nsec = 0, unit = 100000000;
	unsigned digit;

	if (take_byte(str, '.')) {
		if (!take_digits(str, 1, &digit))
			return false;
		do {
			nsec += digit * unit;
			unit /= 10;
		} while (take_digits(str, 1, &digit));
	}
	*ret_nsec = nsec;
	return true;
}

static bool take_zone(const char **str, int *ret_sec)
{
	int sign = **str == '-' ? -1 : 1;
	unsigned hour, minute;

	if (take_byte(str, 'Z') || take_byte(str, 'z')) {
		*ret_sec = 0;
		return true;
	}
	if (!take_byte(str, '+') && !take_byte(str, '-'))
		return false;
	if (!take_digits(str, 2, &hour) || !take_byte(str, ':') || !take_digits(str, 2, &minute) ||
	    hour > 23 || minute > 59)
		return false;
	*ret_sec = sign * (int)(hour * 3600 + minute * 60);
	return true;
}

int oci_time_parse(const char *str, int64_t *ret_sec, uint32_t *ret_nsec)
{
	unsigned clock;
	uint32_t nsec;
	int64_t days;
	int zone;

	if (!take_date(&str, &days) || !(take_byte(&str, 'T') || take_byte(&str, 't')) ||
	    !take_clock(&str, &clock) || !take_fraction(&str, &nsec) || !take_zone(&str, &zone) ||
	    *str)
		return -EINVAL;
	*ret_sec = days * 86400 + clock - zone;
	*ret_nsec = nsec;
	return 0;
}
