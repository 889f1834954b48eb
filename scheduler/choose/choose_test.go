package choose

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

// rooms are n instances with the same room each.
func rooms(n, room int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = room
	}
	return list
}

// draw picks times times, ending each at once, and counts what was picked.
func draw(c *Chooser, times int, flow string, tried ...int) map[int]int {
	count := map[int]int{}
	for range times {
		at := c.Pick(flow, tried)
		count[at]++
		if at >= 0 {
			c.Done(at)
		}
	}
	return count
}

func TestPick_prefers_a_warm_instance_with_room(t *testing.T) {
	t.Parallel()
	c := New(rooms(10, 2))
	c.Warm("f", 7)
	test.Eq(t, map[int]int{7: 100}, draw(c, 100, "f"))

	must.Eq(t, 7, c.Pick("f", nil))
	must.Eq(t, 7, c.Pick("f", nil))
	test.Zero(t, draw(c, 200, "f")[7], test.Sprint("7 is full, others are idle"))
	c.Done(7)
	test.Eq(t, map[int]int{7: 100}, draw(c, 100, "f"), test.Sprint("it has room again"))

	c.Cold("f", 7)
	test.Greater(t, 5, len(draw(c, 500, "f")), test.Sprint("nobody is warm"))
}

func TestPick_takes_the_less_loaded_of_warm_instances(t *testing.T) {
	t.Parallel()
	c := New(rooms(3, 10))
	c.Warm("f", 0)
	c.Warm("f", 2)
	for range 10 {
		c.Pick("f", nil)
	}
	test.Eq(t, 5, c.InFlight(0))
	test.Zero(t, c.InFlight(1))
	test.Eq(t, 5, c.InFlight(2))
}

func TestPick_keeps_the_load_even(t *testing.T) {
	t.Parallel()
	c := New(rooms(20, 1000))
	for range 2000 {
		must.GreaterEq(t, 0, c.Pick("", nil))
	}
	for at := range 20 {
		// Two choices keep all near 100; one random choice would not.
		test.Between(t, 85, c.InFlight(at), 115)
	}
}

func TestPick_compares_instances_of_different_size_by_their_share(t *testing.T) {
	t.Parallel()
	c := New([]int{10, 30})
	for range 40 {
		c.Pick("", nil)
	}
	test.Between(t, 8, c.InFlight(0), 12)
}

func TestPick_sends_on_though_all_are_full(t *testing.T) {
	t.Parallel()
	c := New(rooms(2, 1))
	for range 6 {
		must.GreaterEq(t, 0, c.Pick("f", nil))
	}
}

func TestPick_leaves_out_what_was_tried(t *testing.T) {
	t.Parallel()
	c := New(rooms(3, 1))
	c.Warm("f", 1)
	test.Zero(t, draw(c, 100, "f", 1)[1])
	test.Eq(t, map[int]int{2: 100}, draw(c, 100, "f", 0, 1))
	test.Eq(t, map[int]int{-1: 1}, draw(c, 1, "f", 0, 1, 2))
	test.Eq(t, -1, New(nil).Pick("f", nil))

	many := New(rooms(100, 1))
	var tried []int
	for at := range 99 {
		tried = append(tried, at)
	}
	test.Eq(t, map[int]int{99: 100}, draw(many, 100, "", tried...))
}

func TestPick_avoids_an_instance_that_failed_for_a_while(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := New(rooms(2, 10))
		c.Warm("f", 0)
		c.Failed(0)
		test.Zero(t, draw(c, 100, "f")[0])
		test.Eq(t, map[int]int{0: 1}, draw(c, 1, "f", 1), test.Sprint("better than none"))
		time.Sleep(restAfterFailure + 1)
		test.Eq(t, map[int]int{0: 100}, draw(c, 100, "f"))

		c.Failed(0) // the second in a row: twice as long
		time.Sleep(restAfterFailure + 1)
		test.Zero(t, draw(c, 100, "f")[0])
		c.Reached(0)
		test.Eq(t, map[int]int{0: 100}, draw(c, 100, "f"))

		for range 100 {
			c.Failed(0)
		}
		time.Sleep(maxRest + 1)
		test.Eq(t, map[int]int{0: 100}, draw(c, 100, "f"))
	})
}

func TestWarm_remembers_a_bounded_number_of_flows(t *testing.T) {
	t.Parallel()
	c := New(rooms(2, 10))
	for i := range maxFlows + 100 {
		c.Warm(fmt.Sprint(i), 1)
	}
	test.MapLen(t, maxFlows, c.warm)
	test.Eq(t, map[int]int{1: 50}, draw(c, 50, fmt.Sprint(maxFlows+99)))
}

func TestChooser_counts_right_when_many_use_it(t *testing.T) {
	t.Parallel()
	c := New(rooms(4, 8))
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 500 {
				flow := fmt.Sprint(j % 7)
				at := c.Pick(flow, nil)
				switch (i + j) % 5 {
				case 0:
					c.Cold(flow, at)
				case 1:
					c.Failed(at)
				default:
					c.Warm(flow, at)
					c.Reached(at)
				}
				c.Done(at)
			}
		})
	}
	all.Wait()
	for at := range 4 {
		test.Zero(t, c.InFlight(at))
	}
}

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{2, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := New(rooms(n, 32))
			for b.Loop() {
				c.Done(c.Pick("", nil))
			}
		})
	}
}
