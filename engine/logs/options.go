package logs

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
)

// The drivers' names.
const (
	DriverLocal = "local"
	DriverJSON  = "json-file"
	DriverNone  = "none"
)

// Drivers lists the names that Validate accepts, for docker info.
func Drivers() []string { return []string{DriverJSON, DriverLocal, DriverNone} }

// settings are the options in their meaning.
type settings struct {
	maxSize     int64 // 0: no rotation
	maxFile     int
	compress    bool
	nonBlocking bool
	bufferSize  int64
}

// Validate refuses drivers that do not exist and options that the driver does
// not have, in Docker's words. "" is the default driver.
func Validate(driver string, options map[string]string) error {
	_, err := parse(driver, options)
	return err
}

func invalidf(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

func parse(driver string, options map[string]string) (settings, error) {
	s := settings{}
	switch driver {
	case "", DriverLocal:
		s.maxSize, s.maxFile, s.compress = 20_000_000, 5, true
	case DriverJSON:
		// Docker's own default never rotates; full disks by that are among the
		// most common complaints, so this one does.
		s.maxSize, s.maxFile = 10_000_000, 3
	case DriverNone:
		return s, nil
	default:
		return s, invalidf("logger: no log driver named '%s' is registered", driver)
	}
	for _, key := range slices.Sorted(maps.Keys(options)) {
		if err := s.set(driver, key, options[key]); err != nil {
			return s, err
		}
	}
	if _, ok := options["max-buffer-size"]; ok && !s.nonBlocking {
		return s, invalidf("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
	}
	if s.nonBlocking && s.bufferSize == 0 {
		s.bufferSize = 1 << 20
	}
	if driver == DriverJSON && s.compress && (s.maxFile < 2 || s.maxSize == 0) {
		return s, invalidf("compress cannot be true when max-file is less than 2 or max-size is not set")
	}
	return s, nil
}

func (s *settings) set(driver, key, value string) (err error) {
	switch key {
	case "max-size":
		if value == "-1" {
			s.maxSize = 0
			return nil
		}
		if s.maxSize, err = units.FromHumanSize(value); err != nil {
			return invalidf("invalid value for max-size: %v", err)
		}
		if s.maxSize <= 0 {
			return invalidf("max-size must be a positive number")
		}
	case "max-file":
		if s.maxFile, err = strconv.Atoi(value); err != nil {
			return invalidf("invalid value for max-file: %v", err)
		}
		if s.maxFile < 1 {
			return invalidf("max-file cannot be less than 1")
		}
	case "compress":
		if s.compress, err = strconv.ParseBool(value); err != nil {
			return invalidf("invalid value for compress: %v", err)
		}
	case "mode":
		switch value {
		case "", "blocking":
		case "non-blocking":
			s.nonBlocking = true
		default:
			return invalidf("logger: logging mode not supported: %s", value)
		}
	case "max-buffer-size":
		if s.bufferSize, err = units.RAMInBytes(value); err != nil {
			return invalidf("error parsing option max-buffer-size: %v", err)
		}
		if s.bufferSize <= 0 {
			return invalidf("error parsing option max-buffer-size: must be positive")
		}
	case "labels", "labels-regex", "env", "env-regex", "tag":
		// Attributes; local takes the options, as Docker's does, and does not
		// record them.
	default:
		if driver == DriverJSON {
			return invalidf("unknown log opt '%s' for json-file log driver", key)
		}
		return invalidf("unknown log opt '%s' for log driver %s", key, DriverLocal)
	}
	return nil
}
