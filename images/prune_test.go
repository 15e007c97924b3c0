package images

import (
	"errors"
	"os"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestStorePrune(t *testing.T) {
	s, err := OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	put := func(ref, contents string) {
		t.Helper()
		if err := s.Put(t.Context(), ref, image(t, "amd64", v1.Config{}, layer{file("a", contents)})); err != nil {
			t.Fatal(err)
		}
	}
	there := func(ref string) bool {
		img, err := s.Get(t.Context(), ref, "amd64")
		if err == nil {
			_, err = flatten(t.Context(), img, testSpool(t))
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", ref, err)
		}
		return err == nil
	}
	put("seatrial/init", "ours")
	put("a:1", "first")
	put("a:1", "second") // the first one's blobs are nobody's now
	put("b:1", "other")

	if freed, err := s.Prune(t.Context(), 1); err != nil || freed != 0 {
		t.Errorf("all was used just now: %d bytes freed, %v", freed, err)
	}
	later := time.Now().Add(time.Minute) // as if an hour had passed for all that is there
	freed, err := s.prune(t.Context(), 0, later)
	if err != nil || freed == 0 {
		t.Errorf("the first a:1 is left: %d bytes freed, %v", freed, err)
	}
	if !there("seatrial/init") || !there("a:1") || !there("b:1") {
		t.Error("without a limit images stay")
	}
	old := time.Now().Add(-2 * time.Hour)
	index, err := s.index()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range index.Manifests {
		if d.Annotations[refName] == "b:1" || d.Annotations[refName] == "seatrial/init:latest" {
			if err := os.Chtimes(s.blob(d.Digest), old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := s.Prune(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if there("b:1") || !there("a:1") || !there("seatrial/init") {
		t.Errorf("b:1 was used longest ago: b %v, a %v, init %v", there("b:1"), there("a:1"), there("seatrial/init"))
	}
}
