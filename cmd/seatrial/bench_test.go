package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(c.values); got != c.want {
			t.Errorf("median of %v: %v, want %v", c.values, got, c.want)
		}
	}
}

// The table is made from the file of the figures, and again over itself.
func TestTable(t *testing.T) {
	s := newShop(t)
	figures := []figure{{"boot.init_s", 5.25, "s", "<= 6", "make bench BENCH=boot"}}
	if err := writeFigures(filepath.Join(s.dir, "out", "bench.json"), figures); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(s.dir, "out", "bench.json"))
	var back []figure
	if err != nil || json.Unmarshal(b, &back) != nil || !reflect.DeepEqual(back, figures) {
		t.Fatalf("%s, %v", b, err)
	}
	page := s.write("page.md", "above\n"+tableBegin+"old\n"+tableEnd+"below\n")
	for range 2 {
		if got := s.run("bench", "--table", "page.md"); got.status != 0 {
			t.Fatalf("%+v", got)
		}
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"above\n" + tableBegin, "| `boot.init_s` | 5.250 | s | <= 6 | `make bench BENCH=boot` |", tableEnd + "below\n"} {
		if strings.Count(string(text), want) != 1 {
			t.Errorf("not once in the page: %q\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "old") {
		t.Error("the old table is still there")
	}
	s.write("page.md", "no marks")
	if got := s.run("bench", "--table", "page.md"); got.status != 2 || !strings.Contains(got.stderr, "no place for the table") {
		t.Errorf("%+v", got)
	}
}

// The page that ships has a place for its table.
func TestBenchmarkPage(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "benchmarks.md"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), tableBegin) != 1 || strings.Count(string(text), tableEnd) != 1 {
		t.Error("docs/benchmarks.md has no place for the figures")
	}
	names := groupNames()
	if len(names) == 0 {
		t.Error("there are no groups")
	}
}
