package images

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// layoutFolder is the files of an OCI layout that is a folder. Nothing outside
// of it is read, whatever its links say, and what is read is checked against
// digests as that of an archive is: somebody may change it meanwhile.
type layoutFolder struct {
	root  *os.Root
	sizes map[string]int64 // of what was opened
	total int64
}

// folderImages lists the images of an OCI layout. They are read from the folder
// until done is called.
func folderImages(dir string) (found []importedImage, done func() error, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, err
	}
	a := archive{&layoutFolder{root: root, sizes: map[string]int64{}}}
	if _, err := root.Lstat(ociIndex); errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("the folder has no %s: it is no OCI layout; name one, or an archive", ociIndex)
		return nil, nil, errors.Join(err, root.Close())
	}
	if found, err = a.index(); err != nil {
		return nil, nil, errors.Join(err, root.Close())
	}
	return found, root.Close, nil
}

// open opens a regular file. Others, which might make whoever opens them wait,
// and links are refused.
func (l *layoutFolder) open(name string) (*io.SectionReader, io.Closer, error) {
	info, err := l.root.Lstat(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s is not in it", name)
	}
	if err != nil {
		return nil, nil, err
	}
	if info.Mode()&os.ModeSymlink != 0 {
		return nil, nil, fmt.Errorf("%s is a symbolic link, which is not followed: copy the folder with cp -rL, and import the copy", name)
	}
	f, err := l.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err == nil {
		err = l.count(name, info.Size())
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return io.NewSectionReader(f, 0, info.Size()), f, nil
}

// count holds what is read to the limits of archives.
func (l *layoutFolder) count(name string, size int64) error {
	l.total += size - l.sizes[name]
	l.sizes[name] = size
	if l.total > maxArchive || len(l.sizes) > maxFiles {
		return errTooMuch()
	}
	return nil
}
