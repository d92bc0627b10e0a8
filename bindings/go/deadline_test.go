package channellayer

import (
	"math"
	"testing"
	"time"
)

func TestMillisecondsRoundUpWithinWhatCTakes(t *testing.T) {
	for duration, wanted := range map[time.Duration]uint32{
		math.MinInt64: 0, -time.Hour: 0, -1: 0, 0: 0, 1: 1, time.Millisecond: 1, time.Millisecond + 1: 2,
		(math.MaxUint32 - 1) * time.Millisecond: math.MaxUint32 - 1,
		(math.MaxUint32-1)*time.Millisecond + 1: math.MaxUint32,
		math.MaxUint32 * time.Millisecond:       math.MaxUint32,
		math.MaxUint32*time.Millisecond + 1:     math.MaxUint32,
		math.MaxInt64 - time.Millisecond:        math.MaxUint32,
		math.MaxInt64 - time.Millisecond + 1:    math.MaxUint32,
		math.MaxInt64:                           math.MaxUint32,
	} {
		if got := milliseconds(duration); got != wanted {
			t.Errorf("%d ns are %d ms instead of %d", duration, got, wanted)
		}
	}
}
